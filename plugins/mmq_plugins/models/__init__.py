"""Built-in models, one file a plugin."""
