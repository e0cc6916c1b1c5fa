"""Quantized blocks on disk, and the inventory of everything that is saved."""
