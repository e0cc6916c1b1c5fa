"""Built-in evaluators, one file a plugin."""
