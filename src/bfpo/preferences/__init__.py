"""Preferences: the record (a prompt and K >= 1 answers with labels), its shapes and errors, and its token ids.

It reads files and Hub data sets, reports every problem of them at once, and knows nothing of models or losses.
"""
