"""Generate outputs in batches, and score them with intervals."""

VERSION = 1  # raise it with every change that gives other requests, scores or intervals
