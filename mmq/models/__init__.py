"""A checkpoint becomes a model with parts: skeleton, loading, stages, sizes."""
