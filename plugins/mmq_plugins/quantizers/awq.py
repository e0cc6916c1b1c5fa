"""AWQ: scale salient inputs up before rounding, and clip groups where that lowers the error.

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
from mmq.tensors.quantized_weight import QuantizedWeight, planned_bits, round_to_nearest
from mmq_plugins.quantizers.awq_errors import output_loss, trust
from mmq_plugins.quantizers.awq_levels import Rounding
from mmq_plugins.quantizers.awq_search import (
    CANDIDATES,
    best_clips,
    candidate_scales,
    encode,
    largest_weights,
    refine_clips,
    relative_magnitude,
    scale_errors,
    storable,
)
from mmq_plugins.quantizers.awq_shared import powers_of_two, solve_shared

ZERO = "the layer's inputs were all zero: rounded to nearest"
OVERFLOW = "the squares of the layer's inputs overflow float32: rounded to nearest"


@dataclass(frozen=True)
class Awq(CalibratedQuantizer):
    """Activation-aware rounding, whose outputs are never worse than those of round to nearest.

    group_size: 0 is one group per row. symmetric_no_clipping: symmetric as in autoawq, see
    `MappingType`. duo_scaling: the scale search also divides by the weights' magnitude. clip:
    search a limit for every group. grid: number of ratios in the scale search. scale_dtype: dtype
    in which the scales of codes and of inputs are rounded and stored. foldable: scale inputs by
    powers of two that all their readers share, so that an export can fold them into the norm or
    linear layer before, where that is exact; other layers are not scaled. Together, layers with
    one scale are no worse than rounded to nearest.
    """

    version: ClassVar[int] = 2

    group_size: int = 128
    symmetric: bool = False
    symmetric_no_clipping: bool = False
    duo_scaling: bool = True
    clip: bool = True
    grid: int = 20
    scale_dtype: ScaleDtype = "float16"
    foldable: bool = False

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

    @property
    def scales_inputs(self) -> bool:
        """AWQ scales inputs wherever that rounds better."""
        return True

    @property
    def folds(self) -> bool:
        """Whether input scales must fold into what precedes the layers."""
        return self.foldable

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
        if self.foldable:
            return self._solve_shared([weight.float() for weight in weights], inputs, widths)
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

    def _solve_shared(
        self, weights: Sequence[Tensor], inputs: LayerInputs, widths: Sequence[int]
    ) -> list[dict[int, Solved]]:
        """Codes for every width, with one scale for all weights; unscaled if it cannot fold."""
        size, dtype = self.group_size or weights[0].shape[1], affine.SCALE_DTYPES[self.scale_dtype]
        unscaled = torch.ones_like(inputs.magnitude)[None]
        exact = unscaled[:0]
        if inputs.foldable:
            by_weight = [relative_magnitude(weight, size) for weight in weights]
            duo = torch.stack(by_weight).mean(0) if self.duo_scaling else None
            exact = candidate_scales(inputs.magnitude, duo, self.grid)
        solved: list[dict[int, Solved]] = [{} for _ in weights]
        for bits in widths:
            rounding = Rounding(bits, size, self.mapping, dtype)
            scales = torch.cat([unscaled, powers_of_two(exact, inputs.fold_limits.get(bits))])
            quantized = solve_shared(weights, inputs.gram, scales, rounding, self.clip)
            for by_width, weight in zip(solved, quantized, strict=True):
                by_width[bits] = Solved(weight)
        return solved

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
