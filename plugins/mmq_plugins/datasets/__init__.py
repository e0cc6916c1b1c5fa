"""Built-in datasets, one file a plugin."""
