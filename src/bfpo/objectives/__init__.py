"""Objectives: pure functions from log-probabilities and labels to a loss, BFPO and its rivals side by side.

They know nothing of models, data or files; `registry` finds one by its name.
"""
