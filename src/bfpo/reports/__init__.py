"""Reports of evaluations: the page with its plots, the model card and the tables for the terminal.

This room reads evaluations and knows nothing about how their numbers were made.
"""
