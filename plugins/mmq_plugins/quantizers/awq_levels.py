"""The levels that a group's codes represent, and their rounding errors."""

from typing import NamedTuple

import torch
from torch import Tensor

from mmq.tensors import affine
from mmq.tensors.affine import MappingType


class Rounding(NamedTuple):
    """How weights are rounded; scales are rounded to scale_dtype before they are used."""

    bits: int
    group_size: int
    mapping: MappingType
    scale_dtype: torch.dtype = torch.float32


class Levels(NamedTuple):
    """The values of a group's codes: scale * k, with k = code - zero point from bottom to top."""

    scale: Tensor
    bottom: Tensor
    top: Tensor
    zero_point: Tensor


def choose_levels(low: Tensor, high: Tensor, rounding: Rounding) -> Levels:
    """Levels for weights between low and high, tensors of one shape; zero is among them."""
    bits, _, mapping, dtype = rounding
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale, zero_point = affine.choose_qparams(low, high, bits, mapping, dtype)
    bottom = torch.maximum(torch.round(low / scale), -zero_point)
    top = torch.minimum(torch.round(high / scale), 2**bits - 1 - zero_point)
    return Levels(scale, bottom, top, zero_point)


def multiples(weight: Tensor, levels: Levels) -> Tensor:
    """The nearest multiple of the scale for every weight, among the levels."""
    # rounding is monotonic, so clamping the multiples also clips weights outside the range
    return torch.div(weight, levels.scale).round_().clamp_(levels.bottom, levels.top)


def rounding_errors(weight: Tensor, levels: Levels) -> Tensor:
    """Q(W) - W, of the weight's shape; the levels' shape broadcasts to it."""
    return multiples(weight, levels).mul_(levels.scale).sub_(weight)
