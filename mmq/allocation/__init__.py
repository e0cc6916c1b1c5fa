"""Which part of a model gets how many bits."""
