"""Affine quantization, quantized weights and sums over a layer's inputs."""
