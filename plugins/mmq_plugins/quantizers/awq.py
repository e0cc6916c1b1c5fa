"""AWQ: scale inputs that matter up before rounding, then clip what rounds better when clipped.

Lin et al. 2023, "AWQ: Activation-aware Weight Quantization" (arXiv 2306.00978), section 3.2: for
a scale s per input, Q(W * s) (x / s) rounds the weights of large inputs more finely; s is searched
on a grid, by the error of the layer's outputs. For a changed weight W + D that is trace(D G D^T)
with the Gram matrix G = X^T X of all calibration inputs: no input is kept, no output computed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmq.contracts.quantizer import CalibratedQuantizer, Solved
from mmq.tensors import affine
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
from mmq_plugins.quantizers.awq_shared import SharedSearch, powers_of_two

SHRINKS = tuple(1 - i / 20 for i in range(10))  # of a group's largest weight: where to clip
FINE_SHRINKS = tuple(1 - i / 40 for i in range(24))  # the same, for what is chosen last
KEPT = 3  # scales a width whose clips are searched: the least error unclipped may not stay least
ZERO = "the layer's inputs were all zero: rounded to nearest"
OVERFLOW = "the squares of the layer's inputs overflow float32: rounded to nearest"


def pseudo_quantize(
    weight: Tensor, bits: int, group_size: int, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The published code's rounding of a weight (out, in): weight, scale and zero point.

    In the weight's own dtype; the latter two are (out, n_groups). Ranges need not hold zero, so
    groups of one sign may come out far off: the search takes `choose_levels`, else the same.
    """
    w = affine.grouped(weight, group_size or weight.shape[1])
    steps = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    if symmetric:
        scale = w.abs().amax(-1, keepdim=True).clamp(min=1e-5) / steps
        whole = (w / scale).round_().clamp_(-steps - 1, steps)
        return (whole * scale).reshape(weight.shape), scale[..., 0], None
    low, high = w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)
    scale = (high - low).clamp(min=1e-5) / steps
    zero_point = (-(low / scale).round_()).clamp_(0, steps)
    whole = (w / scale).round_().add_(zero_point).clamp_(0, steps).sub_(zero_point)
    return (whole * scale).reshape(weight.shape), scale[..., 0], zero_point[..., 0]


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

    weights: `relative_magnitude`, whose power 1 - r divides (duo scaling), or None.
    """
    found = []
    for ratio in (i / grid for i in range(grid)):
        scale = magnitude.pow(ratio)
        if weights is not None:
            scale = scale / (weights.pow(1 - ratio) + 1e-4)
        scale = scale.clamp(1e-4, 1e16)  # an input that is always zero has 0
        found.append(scale / (scale.max() * scale.min()).sqrt())
    return torch.stack(found)


def storable(scales: Tensor, weight: Tensor) -> Tensor:
    """Scales (n, in) as float16 keeps them, lifted by a power of two, in float32.

    A power of two changes no rounding, but keeps scales of small weights off float16's bottom.
    """
    magnitude = torch.maximum(weight.amax(0), -weight.amin(0))
    largest = torch.maximum(scales, scales * magnitude).amax(1, keepdim=True)
    lifted = scales * torch.exp2(15 - largest.log2().ceil())  # float16 ends below 2^16
    return lifted.clamp(min=affine.SMALLEST_NORMAL_HALF).half().float()


def scale_errors(
    weight: Tensor, gram: Tensor, scales: Tensor, roundings: Sequence[Rounding]
) -> Tensor:
    """trace(D G D^T) of D = Q(W * s) / s - W, float64 (roundings, scales); groups are shared."""
    errors = torch.zeros(len(roundings), len(scales), dtype=torch.float64, device=weight.device)
    for column, scale in enumerate(scales):
        for block in tiles(weight, BLOCK // len(roundings)):
            rows = weight[block]
            # of all roundings, for one product; D of the inputs as they are needs no scaled G
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

    Each group is judged by its own block of the Gram matrix alone; the first shrink wins ties.
    others: D_o G_o of what is changed elsewhere, for these inputs (out, in), if that is to count.
    scale: (in,), what weights are multiplied by and inputs divided by, before all else.
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
    """Better clips (out, n_groups), on a finer grid: every group given the errors of the others.

    scale: (in,), of the weight and of the inputs. trusted: what share of the groups' common part
    counts; where inputs are few, much of it is chance.
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
    bits, size, symmetric, half = rounding
    codes = torch.empty_like(weight, dtype=torch.uint8)
    step, zero_point = torch.empty_like(clips), torch.empty_like(clips)
    for tile in tiles(weight):
        w = affine.grouped(weight[tile] * scale, size)
        levels = clipped_levels(w, clips[tile, :, None], rounding)
        codes[tile] = multiples(w, levels).add_(levels.zero_point).flatten(1)
        step[tile], zero_point[tile] = levels.scale[..., 0], levels.zero_point[..., 0]
    stored = None if bool((scale == 1).all()) else scale.half() if half else scale
    return compact(codes, step, zero_point, size, bits, symmetric, stored)


@dataclass(frozen=True)
class Awq(CalibratedQuantizer):
    """Activation-aware rounding; its outputs are never further off than round to nearest's.

    group_size: 0 is one group a row. duo_scaling: the scale search divides by the weights'
    magnitude, too. clip: search limits for every group. grid: how many ratios the scale search
    tries. scale_dtype: what scales of codes and of inputs are rounded to and stored in. foldable:
    scales are powers of two that all readers of a norm share, so that an export can fold them into
    it; layers behind anything else are left unscaled.
    """

    group_size: int = 128
    symmetric: bool = False
    duo_scaling: bool = True
    clip: bool = True
    grid: int = 20
    scale_dtype: Literal["float16", "float32"] = "float16"
    foldable: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid < 1:
            raise ValueError(f"grid: {self.grid} ratios; want at least 1")
        if self.scale_dtype not in ("float16", "float32"):
            raise ValueError(f"scale_dtype: {self.scale_dtype!r} is not float16 or float32")

    @property
    def folds(self) -> bool:
        """Whether scales are to be folded."""
        return self.foldable

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes by rounding to nearest, for a layer of whose inputs nothing is known."""
        return round_to_nearest(weight, bits, self.group_size, self.symmetric)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Codes, zero points, scales and input scales.

        A layer that rounds best unscaled, or of whose inputs nothing is known, takes less.
        """
        scale_bits = 16 if self.scale_dtype == "float16" else 32
        own = planned_bits(shape, bits, self.group_size, self.symmetric, scale_bits)
        return own + scale_bits * shape[1]

    @torch.no_grad()
    def solve(
        self, weights: Sequence[Tensor], inputs: LayerInputs, widths: Sequence[int]
    ) -> list[dict[int, Solved]]:
        """Codes for every width, a dict a weight (out, in); every weight has its own scales."""
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            raise ValueError("weight: some values are not finite; only numbers are quantized")
        gram = inputs.gram
        if not torch.isfinite(gram.sum()) or not gram.diagonal().any():
            note = OVERFLOW if gram.diagonal().any() else ZERO
            return [{b: Solved(self.quantize(w, b), note) for b in widths} for w in weights]
        if self.foldable:
            return self._solve_shared([weight.float() for weight in weights], inputs, widths)
        solved = (self._solve(weight.float(), inputs, widths) for weight in weights)
        return [dict(zip(widths, found, strict=True)) for found in solved]

    def _solve(self, weight: Tensor, inputs: LayerInputs, widths: Sequence[int]) -> list[Solved]:
        """Codes for every width: the grid of scales is searched for all of them at once."""
        size, half = self.group_size or weight.shape[1], self.scale_dtype == "float16"
        roundings = [Rounding(bits, size, self.symmetric, half) for bits in widths]
        duo = relative_magnitude(weight, size) if self.duo_scaling else None
        scales = candidate_scales(inputs.magnitude, duo, self.grid)
        scales = storable(scales, weight) if half else scales
        errors = scale_errors(weight, inputs.gram, scales, roundings)  # (widths, grid)
        kept = zip(roundings, errors.topk(min(KEPT, self.grid), largest=False)[1], strict=True)
        return [Solved(self._pick(weight, inputs, scales[best], r)) for r, best in kept]

    def _solve_shared(
        self, weights: Sequence[Tensor], inputs: LayerInputs, widths: Sequence[int]
    ) -> list[dict[int, Solved]]:
        """Codes for every width by one scale for all weights; unscaled if it cannot be folded."""
        size, half = self.group_size or weights[0].shape[1], self.scale_dtype == "float16"
        duo = torch.stack([relative_magnitude(weight, size) for weight in weights]).mean(0)
        scales = candidate_scales(inputs.magnitude, duo if self.duo_scaling else None, self.grid)
        scales = powers_of_two(scales) if inputs.foldable else torch.ones_like(scales[:1])
        solved: list[dict[int, Solved]] = [{} for _ in weights]
        for bits in widths:
            rounding = Rounding(bits, size, self.symmetric, half)
            errors = sum(scale_errors(w, inputs.gram, scales, [rounding])[0] for w in weights)
            assert isinstance(errors, Tensor)
            best = errors.topk(min(KEPT, len(scales)), largest=False)[1]

            def attempts(w: Tensor, scale: Tensor, r: Rounding) -> Iterator[QuantizedWeight]:
                yield encode(w, scale, largest_weights(w, scale, r.group_size), r)
                if self.clip:
                    yield encode(w, scale, best_clips(w, inputs.gram, r, scale=scale), r)

            found = SharedSearch(weights, inputs, attempts).best(scales[best], rounding)
            for by_width, weight in zip(solved, found, strict=True):
                by_width[bits] = Solved(weight)
        return solved

    def _pick(
        self, weight: Tensor, inputs: LayerInputs, scales: Tensor, rounding: Rounding
    ) -> QuantizedWeight:
        """The candidate with the least trace(D G D^T), as stored; round to nearest is one."""
        gram, size = inputs.gram, rounding.group_size
        least, best = float("inf"), (scales[0], scales[0], self.quantize(weight, rounding.bits))

        def attempt(scale: Tensor, clips: Tensor, found: QuantizedWeight | None = None) -> None:
            nonlocal least, best  # the best one alone is kept: codes of ten attempts are large
            found = found or encode(weight, scale, clips, rounding)
            if (error := output_loss(found, weight, gram)) < least:
                least, best = error, (scale, clips, found)

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
