"""Scales too small for float16 raised to its smallest normal number, and codes chosen again."""

from dataclasses import replace

import torch
from torch import Tensor

from mmq.tensors import affine
from mmq.tensors.quantized_weight import QuantizedWeight

SMALLEST = torch.finfo(torch.float16).tiny  # smallest normal number, 6.1e-5


def raise_scales(quantized: QuantizedWeight, weight: Tensor) -> QuantizedWeight:
    """A quantized weight whose scales are float16, with no scale below 6.1e-5.

    weight: (out, in), unquantized. In groups with a raised scale, weights are rounded to multiples
    of 6.1e-5; all other codes are unchanged. A scale above 65504 keeps the layer in float32.
    """
    small = quantized.scale < SMALLEST
    if quantized.scale.dtype != torch.float32 or not bool(small.any()):
        return quantized
    scale = torch.where(small, SMALLEST, quantized.scale)
    zero = quantized.zero_point
    if zero is not None:
        moved = (zero.float() * quantized.scale / scale).round().to(zero.dtype)
        zero = torch.where(small, moved, zero)
    raised = replace(quantized, scale=affine.stored_scale(scale, torch.float16), zero_point=zero)
    codes = quantized.codes.clone()
    rows = small.expand(len(codes), -1).any(1).nonzero()[:, 0]
    for part in torch.split(rows, affine.ROWS):
        codes[part] = _codes(raised, small, weight, part)
    return replace(raised, codes=codes)


def _codes(raised: QuantizedWeight, small: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
    """The codes of some rows, chosen again where the scale was raised."""
    middle = torch.full_like(raised.scale, 2 ** (raised.bits - 1), dtype=torch.float32)
    zero = middle if raised.zero_point is None else raised.zero_point.float()
    scale, zero, is_small = (
        _per_input(raised, t, rows) for t in (raised.scale.float(), zero, small)
    )
    values = weight[rows.to(weight.device)].float().to(scale.device)
    if raised.input_scale is not None:
        values = values * raised.input_scale.float()
    codes = (values / scale + zero).round_().clamp_(0, 2**raised.bits - 1).to(torch.uint8)
    return torch.where(is_small, codes, raised.codes[rows])


def _per_input(raised: QuantizedWeight, parameters: Tensor, rows: Tensor) -> Tensor:
    """Parameters of groups (out, n_groups) as one per weight of these rows, (rows, in)."""
    columns = raised.codes.shape[1]
    of_rows = parameters.expand(len(raised.codes), -1)[rows]
    if raised.group_index is not None:
        return of_rows[:, raised.group_index.long()]
    return of_rows.repeat_interleave(columns // of_rows.shape[1], dim=1)
