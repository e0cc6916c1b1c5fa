"""Built-in quantizers, one file a plugin."""
