"""Checkpoint formats of engines."""
