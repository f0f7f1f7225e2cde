"""Engines: sampled answers and log-likelihoods of given texts, from a local model or a server, in reproducible batches.

This room doesn't know what answers are for.
"""
