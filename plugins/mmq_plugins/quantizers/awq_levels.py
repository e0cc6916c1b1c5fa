"""What the codes of a group stand for: levels of a rounding, and the errors that they leave."""

from typing import NamedTuple

import torch
from torch import Tensor

from mmq.tensors import affine


class Rounding(NamedTuple):
    """How weights are rounded. half: scales are rounded to float16 before they are used."""

    bits: int
    group_size: int
    symmetric: bool
    half: bool = False


class Levels(NamedTuple):
    """What a group's codes stand for: scale * k, k (code - zero point) of bottom to top."""

    scale: Tensor
    bottom: Tensor
    top: Tensor
    zero_point: Tensor


def choose_levels(low: Tensor, high: Tensor, rounding: Rounding) -> Levels:
    """Levels for weights between low and high, tensors of one shape; zero is among them."""
    bits, _, symmetric, half = rounding
    low, high = low.clamp(max=0), high.clamp(min=0)
    span = torch.maximum(high, -low) if symmetric else high - low
    scale = span / (2 ** (bits - 1) - 1 if symmetric else 2**bits - 1)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)  # an all-zero group stays zero
    if half:
        stored = scale.half().float()
        kept = (scale >= affine.SMALLEST_NORMAL_HALF) & torch.isfinite(stored)
        scale = torch.where(kept, stored, scale)  # what float16 has no place for stays float32
    first = torch.round(low / scale)
    zero_point = torch.full_like(scale, 2 ** (bits - 1)) if symmetric else -first
    zero_point = zero_point.clamp_(0, 2**bits - 1)
    bottom = torch.maximum(first, -zero_point)
    top = torch.minimum(torch.round(high / scale), 2**bits - 1 - zero_point)
    return Levels(scale, bottom, top, zero_point)


def multiples(weight: Tensor, levels: Levels) -> Tensor:
    """Which multiple of its scale is nearest to every weight, among the levels."""
    # weights beyond the range get what its ends get: rounding keeps order, so this clips as well
    return torch.div(weight, levels.scale).round_().clamp_(levels.bottom, levels.top)


def rounding_errors(weight: Tensor, levels: Levels) -> Tensor:
    """Q(W) - W, of the weight's shape; the levels' shape broadcasts to it."""
    return multiples(weight, levels).mul_(levels.scale).sub_(weight)
