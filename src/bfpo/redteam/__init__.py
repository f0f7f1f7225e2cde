"""Red teaming: the prompt bank (risky requests, their benign twins, plain requests) and attack styles.

``load_bank()`` reads the packaged bank or a user's file with the same columns, and ``make_attack`` puts a request into
one of `STYLES`, keeping the underlying request for the judge.
"""
