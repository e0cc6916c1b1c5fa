"""Asking a model in batches, and scores with intervals."""

VERSION = 1  # raise it with every change that gives other requests, scores or intervals
