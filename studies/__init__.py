"""The project's own studies on the microworld, and the pretraining of its model: no part of the installed package.

``python -m studies`` runs them (or ``make study-quick``, ``make study-labels``, ``make pretrain``); their results stand
in docs/results.
"""
