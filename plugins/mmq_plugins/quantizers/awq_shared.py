"""AWQ with one scale for all layers that read the same inputs: powers of two, to be folded."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mmq.tensors.quantized_weight import QuantizedWeight
from mmq_plugins.quantizers.awq_errors import output_loss
from mmq_plugins.quantizers.awq_levels import Rounding
from mmq_plugins.quantizers.awq_search import (
    CANDIDATES,
    best_clips,
    encode,
    largest_weights,
    scale_errors,
)

MAX_EXPONENT = 6  # largest |log2 scale|: folded tensors stay far from float16's limits


def powers_of_two(scales: Tensor, limit: Tensor | None = None) -> Tensor:
    """The nearest powers of two (n, in), with median 1; equal rows only once.

    limit: the largest exponent per input, (in,).
    """
    exponents = scales.log2().round()
    exponents = exponents - exponents.median(1, keepdim=True)[0]
    exponents = exponents.clamp(-MAX_EXPONENT, MAX_EXPONENT)
    if limit is not None:
        exponents = exponents.minimum(limit.to(exponents))
    unique: Tensor = torch.unique(torch.exp2(exponents), dim=0)
    return unique


def solve_shared(
    weights: Sequence[Tensor], gram: Tensor, scales: Tensor, rounding: Rounding, clip: bool
) -> list[QuantizedWeight]:
    """The weights encoded with the scale of the least error, summed over all of them.

    scales: candidates (n, in). The first one is always tried; of the others, those with the least
    error before any clipping.
    """
    least, best = float("inf"), list[QuantizedWeight]()
    for scale in _candidates(weights, gram, scales, rounding):
        total, quantized = 0.0, []
        for weight in weights:
            losses = (
                (output_loss(encoded, weight, gram), encoded)
                for encoded in _encodings(weight, gram, scale, rounding, clip)
            )
            loss, encoded = min(losses, key=lambda pair: pair[0])
            total += loss
            quantized.append(encoded)
        if total < least:
            least, best = total, quantized
    return best


def _candidates(
    weights: Sequence[Tensor], gram: Tensor, scales: Tensor, rounding: Rounding
) -> list[Tensor]:
    first, others = scales[0], scales[1:]
    if not len(others):
        return [first]
    errors = torch.stack([scale_errors(w, gram, others, [rounding])[0] for w in weights]).sum(0)
    return [first, *others[errors.topk(min(CANDIDATES, len(others)), largest=False)[1]]]


def _encodings(
    weight: Tensor, gram: Tensor, scale: Tensor, rounding: Rounding, clip: bool
) -> Iterator[QuantizedWeight]:
    yield encode(weight, scale, largest_weights(weight, scale, rounding.group_size), rounding)
    if clip:
        yield encode(weight, scale, best_clips(weight, gram, rounding, scale=scale), rounding)
