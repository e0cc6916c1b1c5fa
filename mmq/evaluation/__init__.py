"""Asking a model in batches, and scores with intervals."""
