"""Training: the one place where data, engine and objective meet, on `transformers.Trainer`.

Config, recipe, step plan, trainer, metrics and checkpoints are here; how a model is judged afterwards is not.
"""
