"""The selected model in an engine's format: planned, written, read back and scored."""
