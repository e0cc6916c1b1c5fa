"""Built-in quantizers, one file per plugin."""
