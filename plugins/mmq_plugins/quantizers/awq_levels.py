"""What the codes of a group stand for: levels of a rounding, and the errors that they leave."""

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
    """What a group's codes stand for: scale * k, with k = code - zero point from bottom to top."""

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
    """Which multiple of its scale is nearest to every weight, among the levels."""
    # weights beyond the range get what its ends get: rounding keeps order, so this clips as well
    return torch.div(weight, levels.scale).round_().clamp_(levels.bottom, levels.top)


def rounding_errors(weight: Tensor, levels: Levels) -> Tensor:
    """Q(W) - W, of the weight's shape; the levels' shape broadcasts to it."""
    return multiples(weight, levels).mul_(levels.scale).sub_(weight)
