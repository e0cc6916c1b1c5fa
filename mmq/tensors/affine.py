"""Affine quantization of tensors: pure functions, no files, no devices, no state.

A weight (out, in) is cut into groups of `group_size` along `in`; a group of rows x columns shares
one scale and one zero point. Quantization parameters have shape (out, n_groups), (out, 1) for one
group a row, or (1, 1) for one group a tensor. Codes are integers in [0, 2^bits - 1] and
`weight = scale * (code - zero_point)`.
"""

import torch
from torch import Tensor

SMALLEST_NORMAL_HALF = torch.finfo(torch.float16).tiny
LARGEST_HALF = torch.finfo(torch.float16).max
ROWS = 1024  # taken at once where nothing couples them: in float32 a large layer is large


def grouped(weight: Tensor, group_size: int) -> Tensor:
    """(out, in) -> (out, n_groups, group_size); ValueError where it does not divide."""
    out_features, in_features = weight.shape
    if in_features % group_size:
        raise ValueError(f"group_size: {group_size} does not divide {in_features} inputs")
    return weight.reshape(out_features, in_features // group_size, group_size)


def choose_qparams(
    weight: Tensor, bits: int, group_size: int, symmetric: bool
) -> tuple[Tensor, Tensor]:
    """Scale and integer zero point of every group, both (out, n_groups), float32.

    Asymmetric: the range is [min(w, 0), max(w, 0)], so that zero is a code (GPTQ, AWQ).
    Symmetric: the range is [-max|w|, max|w|] with the zero point at 2^(bits-1) (GPTQ).
    Scales are rounded to float16 before they are used, as they are stored; where some are
    too small for a normal float16, or too large for any, they stay float32.
    """
    w = grouped(weight, group_size)
    low, high = w.amin(-1).float().clamp(max=0), w.amax(-1).float().clamp(min=0)
    if symmetric:
        high = torch.maximum(high, -low)
        low = -high
    levels = 2**bits - 1
    scale = (high - low) / levels
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)  # an all-zero group stays zero
    if scale.min() >= SMALLEST_NORMAL_HALF and scale.max() <= LARGEST_HALF:
        scale = scale.half().float()
    if symmetric:
        return scale, torch.full_like(scale, 2 ** (bits - 1))
    return scale, torch.round(-low / scale).clamp(0, levels)


def choose_tensor_qparams(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and real zero point that map [w_min, w_max] onto the codes, both (1, 1), float32.

    Paper, appendix A.1: x_hat = round((x - w_min) / (w_max - w_min) * (2^k - 1)) / (2^k - 1) and
    Q(x) = (w_max - w_min) * x_hat + w_min (the sign printed in the paper's last formula does not
    undo its own normalization). A constant tensor is kept exactly.
    """
    low, high = weight.min().float(), weight.max().float()
    scale = (high - low) / (2**bits - 1)
    if scale == 0:
        return torch.ones_like(low).reshape(1, 1), -low.reshape(1, 1)
    return scale.reshape(1, 1), (-low / scale).reshape(1, 1)


def quantize(weight: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Codes of a weight, uint8 (out, in), by rounding to nearest."""
    of_rows = (torch.split(t.expand(len(weight), -1), ROWS) for t in (weight, scale, zero_point))
    return torch.cat([_codes(w, s, z, bits) for w, s, z in zip(*of_rows, strict=True)])


def _codes(weight: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    w = weight.float().reshape(len(weight), scale.shape[1], -1)  # (rows, n_groups, g)
    codes = (w / scale[..., None]).add_(zero_point[..., None]).round_().clamp_(0, 2**bits - 1)
    return codes.to(torch.uint8).reshape(weight.shape)


def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The weight that the codes stand for, float32 (out, in)."""
    c = codes.float().reshape(codes.shape[0], scale.shape[1], -1)  # (out, n_groups, g)
    return c.sub_(zero_point[..., None]).mul_(scale[..., None]).reshape(codes.shape)
