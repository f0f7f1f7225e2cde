"""Preference data: prompts with K >= 1 labeled answers, read from files or the Hub, checked and tokenized.

This room reports all problems of a source at once and is independent of models and losses.
"""
