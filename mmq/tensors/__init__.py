"""Affine quantization, quantized weights and sums over a layer's inputs."""

VERSION = 1  # raise it with every change that gives other codes of a weight
