"""Quantizing blocks in order, in any nn.Module."""

VERSION = 2  # raise it with every change that gives other calibration inputs or codes of a block
