"""Labeling: from people's labels and judges' verdicts to the probabilities that objectives read.

It knows what a judge says and how often that is wrong, but not how a judge works, nor what trains on the labels.
"""
