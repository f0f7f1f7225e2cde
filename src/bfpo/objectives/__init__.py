"""Objectives: pure functions from log-probabilities and labels to a loss, independent of models, data and files.

`registry` lists them by name.
"""
