"""AWQ's searches: scales of inputs, clipping limits of groups, and codes by both.

Errors are squared errors of a layer's outputs, trace(D G D^T) for a changed weight W + D and the
Gram matrix G = X^T X of its inputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmq.tensors import affine
from mmq.tensors.quantized_weight import QuantizedWeight, compact
from mmq_plugins.quantizers.awq_errors import (
    BLOCK,
    scaled_blocks,
    scaled_columns,
    squared_errors_,
    tiles,
)
from mmq_plugins.quantizers.awq_levels import (
    Levels,
    Rounding,
    choose_levels,
    multiples,
    rounding_errors,
)

# clipping limits, as shares of a group's largest weight
SHRINKS = tuple(1 - i / 20 for i in range(10))
FINE_SHRINKS = tuple(1 - i / 40 for i in range(24))  # finer limits for `refine_clips`
CANDIDATES = 3  # scales per width whose clips are searched: clipping may change their order


def relative_magnitude(weight: Tensor, group_size: int) -> Tensor:
    """Mean over rows of |w| by its group's largest, (in,): what duo scaling divides by."""
    w = affine.grouped(weight.abs(), group_size)
    return w.div_(w.amax(-1, keepdim=True) + 1e-6).reshape(weight.shape).mean(0)


def largest_weights(weight: Tensor, scale: Tensor, group_size: int) -> Tensor:
    """The largest |w * s| of every group of a weight (out, in), (out, n_groups)."""
    parts = (affine.grouped(weight[tile] * scale, group_size) for tile in tiles(weight))
    return torch.cat([w.abs_().amax(-1) for w in parts])


def candidate_scales(magnitude: Tensor, weights: Tensor | None, grid: int) -> Tensor:
    """Scales per input, (grid, in): mean |x|^r for r = 0, 1/grid, ..., with max * min = 1.

    weights: `relative_magnitude`, whose power 1 - r is divided by (duo scaling), or None.
    """
    scales = []
    for ratio in (i / grid for i in range(grid)):
        scale = magnitude.pow(ratio)
        if weights is not None:
            scale = scale / (weights.pow(1 - ratio) + 1e-4)
        scale = scale.clamp(1e-4, 1e16)  # an input that is always zero has 0
        scales.append(scale / (scale.max() * scale.min()).sqrt())
    return torch.stack(scales)


def storable(scales: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Scales (n, in) rounded to a dtype, lifted by a power of two, in float32.

    A power of two does not affect rounding, but avoids float16's smallest numbers for scales of
    small weights. Scales in float32 are returned unchanged.
    """
    if dtype == torch.float32:
        return scales
    magnitude = torch.maximum(weight.amax(0), -weight.amin(0))
    largest = torch.maximum(scales, scales * magnitude).amax(1, keepdim=True)
    lifted = scales * torch.exp2(15 - largest.log2().ceil())  # float16 ends below 2^16
    return lifted.clamp(min=torch.finfo(dtype).tiny).to(dtype).float()


def scale_errors(
    weight: Tensor, gram: Tensor, scales: Tensor, roundings: Sequence[Rounding]
) -> Tensor:
    """trace(D G D^T) of D = Q(W * s) / s - W, float64 (roundings, scales); groups are shared."""
    errors = torch.zeros(len(roundings), len(scales), dtype=torch.float64, device=weight.device)
    for column, scale in enumerate(scales):
        for block in tiles(weight, BLOCK // len(roundings)):
            rows = weight[block]
            # D of all roundings, for one product; for unscaled inputs, so G needs no scaling
            difference = weight.new_empty(len(roundings), *rows.shape)
            for tile in tiles(rows):
                w = affine.grouped(rows[tile] * scale, roundings[0].group_size)
                low, high = w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)
                for row, rounding in enumerate(roundings):
                    changed = rounding_errors(w, choose_levels(low, high, rounding)).flatten(1)
                    torch.div(changed, scale, out=difference[row, tile])
            lost = squared_errors_(difference.flatten(0, 1), gram).view(len(roundings), -1)
            errors[:, column] += lost.sum(1, dtype=torch.float64)
    return errors


def clipped_levels(weight: Tensor, limit: Tensor, rounding: Rounding) -> Levels:
    """Levels of groups (..., g) whose ranges are cut at +-limit (..., 1)."""
    low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
    return choose_levels(low.clamp(min=-limit), high.clamp(max=limit), rounding)


def best_clips(
    weight: Tensor,
    gram: Tensor,
    rounding: Rounding,
    shrinks: Sequence[float] = SHRINKS,
    others: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Where to clip every group of a weight (out, in), (out, n_groups): max|w| times a shrink.

    Each group uses only its own block of the Gram matrix; the first shrink wins ties.
    others: D_o G_o of changes in other groups, for these inputs (out, in), or None.
    scale: (in,), multiplies weights and divides inputs first.
    """
    size, parts = rounding.group_size, []
    blocks = scaled_blocks(gram, size, scale)
    for tile in tiles(weight):
        scaled = weight[tile] if scale is None else weight[tile] * scale
        w = affine.grouped(scaled, size).transpose(0, 1).contiguous()  # (n_groups, rows, g)
        low, high = w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)
        best = largest = torch.maximum(-low, high)
        least = torch.full_like(largest, torch.inf)
        for limit in (largest * shrink for shrink in shrinks):
            levels = choose_levels(low.clamp(min=-limit), high.clamp(max=limit), rounding)
            difference = rounding_errors(w, levels)
            error = torch.zeros_like(largest)
            if others is not None:
                other = affine.grouped(others[tile], size).transpose(0, 1)
                error += 2 * (difference * other).sum(-1, keepdim=True)
            error += squared_errors_(difference, blocks)[..., None]
            better = error < least
            least, best = torch.where(better, error, least), torch.where(better, limit, best)
        parts.append(best[..., 0].T)
    return torch.cat(parts)


def refine_clips(
    weight: Tensor,
    gram: Tensor,
    scale: Tensor,
    clips: Tensor,
    rounding: Rounding,
    trusted: float = 1.0,
) -> Tensor:
    """Better clips (out, n_groups), on a finer grid, for each group given the others' errors.

    scale: (in,), of the weight and of the inputs. trusted: share of the correlations between
    groups that counts; with few inputs, much of them is chance.
    """
    size, refined = rounding.group_size, clips.clone()
    for rows in tiles(weight, BLOCK):
        w = affine.grouped(weight[rows] * scale, size)  # (rows, n_groups, g)
        levels = clipped_levels(w, clips[rows, :, None], rounding)
        difference = rounding_errors(w, levels).flatten(1)
        for group in range(w.shape[1]):
            part, own = slice(group * size, (group + 1) * size), w[:, group]
            columns = scaled_columns(gram, scale, part)
            block = columns[part]
            others = trusted * (difference @ columns - difference[:, part] @ block)
            limit = best_clips(own, block, rounding, FINE_SHRINKS, others)
            difference[:, part] = rounding_errors(own, clipped_levels(own, limit, rounding))
            refined[rows, group] = limit[:, 0]
    return refined


def encode(weight: Tensor, scale: Tensor, clips: Tensor, rounding: Rounding) -> QuantizedWeight:
    """Codes of a weight (out, in) times a scale (in,), clipped at +-clips (out, n_groups)."""
    bits, size, mapping, dtype = rounding
    codes = torch.empty_like(weight, dtype=torch.uint8)
    step, zero_point = torch.empty_like(clips), torch.empty_like(clips)
    for tile in tiles(weight):
        w = affine.grouped(weight[tile] * scale, size)
        levels = clipped_levels(w, clips[tile, :, None], rounding)
        codes[tile] = multiples(w, levels).add_(levels.zero_point).flatten(1)
        step[tile], zero_point[tile] = levels.scale[..., 0], levels.zero_point[..., 0]
    stored = None if bool((scale == 1).all()) else scale.to(dtype)
    return compact(codes, step, zero_point, size, bits, mapping, dtype, stored)
