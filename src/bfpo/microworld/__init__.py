"""The microworld: a closed world of everyday requests in which helpfulness and safety are decided exactly.

It has a grammar, an oracle, data in the shapes of the public sets, and a tiny pretrained chat model.
"""
