"""Training: combines data, engine and objective in a subclass of `transformers.Trainer`."""
