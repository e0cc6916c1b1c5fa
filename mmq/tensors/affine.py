"""Affine quantization of tensors: pure functions, no files, no devices, no state.

A weight (out, in) is cut into groups of `group_size` along `in`; the weights of a group share one
scale and one zero point. Quantization parameters have shape (out, n_groups), (out, 1) for one
group per row, or (1, 1) for one group per tensor. Codes are integers in [0, 2^bits - 1] and
`weight = scale * (code - zero_point)`.
"""

from enum import Enum

import torch
from torch import Tensor

FLOAT16_ONLY = "float16-only"  # scales too small for it are raised, see `raised_scales`
SCALE_DTYPES = {
    "float16": torch.float16,
    FLOAT16_ONLY: torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
ROWS = 1024  # processed at once: a float32 copy of a whole layer can be large


class MappingType(Enum):
    """How a range of weights [low, high] is mapped onto the codes 0 to 2^bits - 1.

    ASYMMETRIC: low and high are the first and last code; the zero point is an integer.
    SYMMETRIC: [-m, m] with m = max(-low, high) spans 2^bits - 1 steps around the middle code
    2^(bits-1). There is no code for +m, which is clipped by half a step (GPTQ, torchao).
    SYMMETRIC_NO_CLIPPING: m is 2^(bits-1) - 1 steps from the middle code: nothing is clipped, and
    code 0 is never used (autoawq).
    REAL_ZERO_POINT: as ASYMMETRIC, but the zero point is a real number, so that low and high are
    exact and zero need not be a code (paper, appendix A.1).
    """

    ASYMMETRIC = "asymmetric"
    SYMMETRIC = "symmetric"
    SYMMETRIC_NO_CLIPPING = "symmetric_no_clipping"
    REAL_ZERO_POINT = "real_zero_point"

    @classmethod
    def of(cls, symmetric: bool) -> "MappingType":
        """What a quantizer's option `symmetric` selects."""
        return cls.SYMMETRIC if symmetric else cls.ASYMMETRIC

    @property
    def is_symmetric(self) -> bool:
        """Whether the zero point is always the middle code, so that none is stored."""
        return self in (MappingType.SYMMETRIC, MappingType.SYMMETRIC_NO_CLIPPING)


def grouped(weight: Tensor, group_size: int) -> Tensor:
    """(out, in) -> (out, n_groups, group_size); ValueError if the size does not divide `in`."""
    out_features, in_features = weight.shape
    if in_features % group_size:
        raise ValueError(f"group_size: {group_size} does not divide {in_features} inputs")
    return weight.reshape(out_features, in_features // group_size, group_size)


def value_range(values: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """The range [min(v, 0), max(v, 0)] along one dimension: with zero in it, zero is a code."""
    return values.amin(dim).clamp(max=0), values.amax(dim).clamp(min=0)  # aminmax is slower


def choose_qparams(
    low: Tensor,
    high: Tensor,
    bits: int | Tensor,
    mapping: MappingType = MappingType.ASYMMETRIC,
    scale_dtype: torch.dtype = torch.float32,
    min_span: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Scale and zero point of ranges [low, high], both of the ranges' shape and dtype.

    bits: one width, or a tensor of widths that broadcasts with the ranges. scale_dtype: what the
    scales are stored in; they are rounded to it first, see `round_scale`. min_span: narrower
    ranges are widened to it (autoawq: 1e-5). An empty range gets the scale 1.
    """
    levels = 2**bits - 1
    if mapping is MappingType.SYMMETRIC_NO_CLIPPING:
        span, steps = torch.maximum(high, -low), (levels - 1) / 2
    elif mapping is MappingType.SYMMETRIC:
        span, steps = 2 * torch.maximum(high, -low), levels
    else:
        span, steps = high - low, levels
    if min_span:
        span = span.clamp(min=min_span)
    scale = span / steps
    scale = round_scale(torch.where(scale == 0, torch.ones_like(scale), scale), scale_dtype)
    if mapping.is_symmetric:
        return scale, torch.zeros_like(scale) + (levels + 1) / 2
    if mapping is MappingType.REAL_ZERO_POINT:
        return scale, -low / scale
    last = torch.as_tensor(levels, dtype=scale.dtype, device=scale.device)
    return scale, torch.minimum(torch.round(-low / scale).clamp_(min=0), last)


def round_scale(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Scales rounded to a dtype, returned in their own dtype.

    A scale that is not a normal number there (in float16: below 6.1e-5 or above 65504) is left as
    it is: a layer with such a scale is stored in float32, see `stored_scale`.
    """
    stored = scale.to(dtype).to(scale.dtype)
    normal = (scale >= torch.finfo(dtype).tiny) & torch.isfinite(stored)
    return torch.where(normal, stored, scale)


def stored_scale(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """A layer's scales in the dtype that they were rounded to, or float32 if one does not fit."""
    stored = scale.to(dtype)
    return stored if torch.equal(stored.to(scale.dtype), scale) else scale.float()


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
