"""A checkpoint becomes a model with parts: skeleton, loading, stages, sizes."""

VERSION = 2  # raise it with every change that gives other parts, inputs or outputs of a model
