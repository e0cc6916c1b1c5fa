"""Built-in evaluators, one file per plugin."""
