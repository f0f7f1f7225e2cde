"""Labeling: people's labels and judges' verdicts combined into the probabilities that objectives read.

This room uses verdicts and judges' error rates, but is independent of how judges work and of training.
"""

# Share of the queue's rows that are drawn at random, by default.
RANDOM_SHARE = 0.2
