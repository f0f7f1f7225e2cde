"""Reports of evaluations: the page with its plots, the model card and the tables for the terminal."""
