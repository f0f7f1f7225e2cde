"""SafeHelp: the benchmark of helpfulness, harmlessness and over-refusal, by sampled answers and by likelihood.

Suites, runners, scores and statistics are here; nothing of how a model was trained is.
"""
