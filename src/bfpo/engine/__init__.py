"""The engine: log-probabilities of K answers a prompt, the reference's among them, and which weights train.

It knows models and token ids, and nothing of objectives or of what the log-probabilities are for.
"""
