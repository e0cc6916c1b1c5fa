"""Quantizing blocks in order, in any nn.Module."""
