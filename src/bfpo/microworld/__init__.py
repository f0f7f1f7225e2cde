"""The microworld: a closed world of everyday requests in which helpful and safe can be decided exactly.

It holds the grammar, the oracle, data in the shapes of the public sets, and a tiny pretrained chat model.
"""
