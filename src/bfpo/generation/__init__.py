"""Generation: sampling answers to prompts from a local model, reproducibly and in batches planned beforehand.

It knows nothing of what is done with the answers.
"""
