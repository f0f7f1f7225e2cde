"""Generators: sampled answers and log-likelihoods of given texts, from a local model or a server."""
