"""Judges: is an answer safe, is it a refusal, which of two helps more, and how far can the judge be trusted.

It knows nothing of training, nor of what its verdicts are for.
"""
