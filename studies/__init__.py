"""The project's own studies on the microworld, and the pretraining of its model; not part of the installed package.

``python -m studies`` runs them (or ``make study-quick``, ``make study-labels``, ``make pretrain``); their results are
in docs/results.
"""
