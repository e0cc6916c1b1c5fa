"""Built-in datasets, one file per plugin."""
