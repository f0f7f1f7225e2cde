"""The engine: log-probabilities of K answers per prompt, the reference and its cache, and the trainable weights.

It depends on models and token ids, not on objectives.
"""
