"""Weights and inputs that tests of AWQ quantize."""

import itertools

import torch

from mmq.tensors.layer_inputs import LayerInputs

WIDTHS = (2, 3, 4, 5, 6, 8)
OPTIONS = list(itertools.product((0, 32, 128), (False, True), (False, True)))  # groups, sym, duo


def quarter(number):
    """Three of the options: every group size, three of the four pairs of switches.

    Four numbers in a row have all options between them.
    """
    return [one for i, one in enumerate(OPTIONS) if (i + i // 4) % 4 == number % 4]


def inputs_of(x, max_rows=0):
    sums = LayerInputs(x.shape[1], max_rows=max_rows)
    sums.update_(x)
    return sums


def draw(kind, tokens=1024, columns=256, rows=64, seed=0):
    """A weight, calibration inputs and held-out inputs of the same distribution."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    mixing, spread, shift = normal(columns // 4, columns), normal(columns), normal(columns)
    outliers = torch.ones(columns)
    outliers[torch.randperm(columns, generator=generator)[: columns // 50]] = 20

    def tokens_of():
        if kind == "independent":
            return normal(tokens, columns)
        if kind == "outliers":
            return normal(tokens, columns) * outliers * (spread / 2).exp()
        if kind == "rectified":
            return torch.relu(normal(tokens, columns) + shift - 0.5)
        common = normal(tokens, columns // 4) @ mixing / (columns / 4) ** 0.5
        return (common + 0.3 * normal(tokens, columns) + shift) * spread.exp()

    weight = normal(rows, columns) * 0.05 * (0.3 * normal(columns)).exp()
    return weight, tokens_of(), tokens_of()


KINDS = ("independent", "outliers", "rectified", "correlated")


def loss(weight, quantized, x):
    """Mean squared error of a linear layer's outputs, in float64."""
    return float((x.double() @ (quantized.double() - weight.double()).T).square().mean())
