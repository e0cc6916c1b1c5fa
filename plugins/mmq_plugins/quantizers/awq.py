"""AWQ: scale salient inputs up before rounding, and clip groups that round better clipped.

Lin et al. 2023, "AWQ: Activation-aware Weight Quantization" (arXiv 2306.00978), section 3.2: for
a scale s per input, Q(W * s) (x / s) rounds the weights of large inputs more finely; s is searched
on a grid, by the error of the layer's outputs. For a changed weight W + D that is trace(D G D^T)
with the Gram matrix G = X^T X of all calibration inputs, so neither inputs nor outputs are needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mmq.contracts.quantizer import CalibratedQuantizer, ScaleDtype, Solved
from mmq.tensors import affine
from mmq.tensors.affine import MappingType
from mmq.tensors.layer_inputs import LayerInputs
from mmq.tensors.quantized_weight import QuantizedWeight, compact, planned_bits, round_to_nearest
from mmq_plugins.quantizers.awq_errors import (
    BLOCK,
    output_loss,
    scaled_blocks,
    scaled_columns,
    squared_errors_,
    tiles,
    trust,
)
from mmq_plugins.quantizers.awq_levels import (
    Levels,
    Rounding,
    choose_levels,
    multiples,
    rounding_errors,
)

SHRINKS = tuple(
    1 - i / 20 for i in range(10)
)  # clipping limits, as shares of a group's largest weight
FINE_SHRINKS = tuple(1 - i / 40 for i in range(24))  # the same, for the refinement
CANDIDATES = 3  # scales per width whose clips are searched: clipping may change their order
ZERO = "the layer's inputs were all zero: rounded to nearest"
OVERFLOW = "the squares of the layer's inputs overflow float32: rounded to nearest"


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


@dataclass(frozen=True)
class Awq(CalibratedQuantizer):
    """Activation-aware rounding, whose outputs are never worse than those of round to nearest.

    group_size: 0 is one group per row. symmetric_no_clipping: symmetric as in autoawq, see
    `MappingType`. duo_scaling: the scale search also divides by the weights' magnitude. clip:
    search a limit for every group. grid: number of ratios in the scale search. scale_dtype: dtype
    in which the scales of codes and of inputs are rounded and stored.
    """

    version: ClassVar[int] = 1

    group_size: int = 128
    symmetric: bool = False
    symmetric_no_clipping: bool = False
    duo_scaling: bool = True
    clip: bool = True
    grid: int = 20
    scale_dtype: ScaleDtype = "float16"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.symmetric and self.symmetric_no_clipping:
            raise ValueError("symmetric_no_clipping: choose either this or symmetric")
        if self.grid < 1:
            raise ValueError(f"grid: {self.grid} is not at least 1")

    @property
    def mapping(self) -> MappingType:
        """How ranges are mapped onto codes."""
        if self.symmetric_no_clipping:
            return MappingType.SYMMETRIC_NO_CLIPPING
        return MappingType.of(self.symmetric)

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes by rounding to nearest, for a layer that no calibration input reached."""
        dtype = affine.SCALE_DTYPES[self.scale_dtype]
        return round_to_nearest(weight, bits, self.group_size, self.mapping, dtype)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Codes, zero points, scales and input scales.

        A layer that rounds best unscaled, or that no calibration input reached, takes less.
        """
        dtype = affine.SCALE_DTYPES[self.scale_dtype]
        own = planned_bits(shape, bits, self.group_size, self.mapping, dtype)
        return own + 8 * dtype.itemsize * shape[1]

    @torch.no_grad()
    def solve(
        self, weights: Sequence[Tensor], inputs: LayerInputs, widths: Sequence[int]
    ) -> list[dict[int, Solved]]:
        """Codes for every width, one dict per weight (out, in), each with its own scales."""
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            raise ValueError("weight: some values are not finite numbers")
        gram = inputs.gram
        if not torch.isfinite(gram.sum()) or not gram.diagonal().any():
            note = OVERFLOW if gram.diagonal().any() else ZERO
            return [{b: Solved(self.quantize(w, b), note) for b in widths} for w in weights]
        solved = (self._solve(weight.float(), inputs, widths) for weight in weights)
        return [dict(zip(widths, results, strict=True)) for results in solved]

    def _solve(self, weight: Tensor, inputs: LayerInputs, widths: Sequence[int]) -> list[Solved]:
        """Codes for every width: the grid of scales is searched for all of them at once."""
        size, dtype = self.group_size or weight.shape[1], affine.SCALE_DTYPES[self.scale_dtype]
        roundings = [Rounding(bits, size, self.mapping, dtype) for bits in widths]
        duo = relative_magnitude(weight, size) if self.duo_scaling else None
        scales = candidate_scales(inputs.magnitude, duo, self.grid)
        scales = storable(scales, weight, dtype)
        errors = scale_errors(weight, inputs.gram, scales, roundings)  # (widths, grid)
        best = errors.topk(min(CANDIDATES, self.grid), largest=False)[1]  # (widths, candidates)
        candidates = zip(roundings, best, strict=True)
        return [Solved(self._pick(weight, inputs, scales[k], r)) for r, k in candidates]

    def _pick(
        self, weight: Tensor, inputs: LayerInputs, scales: Tensor, rounding: Rounding
    ) -> QuantizedWeight:
        """The candidate with the least trace(D G D^T), as stored; round to nearest is one."""
        gram, size = inputs.gram, rounding.group_size
        least, best = float("inf"), (scales[0], scales[0], self.quantize(weight, rounding.bits))

        def attempt(
            scale: Tensor, clips: Tensor, quantized: QuantizedWeight | None = None
        ) -> None:
            nonlocal least, best  # only the best one: codes of ten attempts are large
            quantized = quantized or encode(weight, scale, clips, rounding)
            if (error := output_loss(quantized, weight, gram)) < least:
                least, best = error, (scale, clips, quantized)

        one = torch.ones_like(scales[0])
        attempt(one, largest_weights(weight, one, size), best[-1])
        for scale in (one, *scales):
            attempt(scale, largest_weights(weight, scale, size))
            if self.clip:
                attempt(scale, best_clips(weight, gram, rounding, scale=scale))
        if self.clip:
            scale, clips, _ = best
            trusted = trust(gram, inputs.count)
            attempt(scale, refine_clips(weight, gram, scale, clips, rounding, trusted))
        return best[-1]
