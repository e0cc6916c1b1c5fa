"""Built-in models, one file per plugin."""
