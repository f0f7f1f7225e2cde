"""Experiments on the microworld: the quickstart, and the study behind its defaults, each one command.

They only put the public parts together, as a user would: data files, recipes, runs, SafeHelp, report.
"""
