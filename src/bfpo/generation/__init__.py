"""Generation: sampling answers to prompts from a local model or a server, reproducibly, in batches planned beforehand.

It knows nothing of what is done with the answers.
"""
