"""Targets: the checkpoint formats of engines."""
