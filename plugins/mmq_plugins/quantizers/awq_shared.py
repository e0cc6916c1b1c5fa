"""AWQ with one scale for all layers that read the same: powers of two, to be folded away."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from mmq.tensors.layer_inputs import LayerInputs
from mmq.tensors.quantized_weight import QuantizedWeight
from mmq_plugins.quantizers.awq_errors import output_loss
from mmq_plugins.quantizers.awq_levels import Rounding

Attempts = Callable[[Tensor, Tensor, Rounding], Iterable[QuantizedWeight]]
LARGEST = 6  # exponents lie between -6 and 6: what is folded must stay far from float16's ends


def powers_of_two(scales: Tensor) -> Tensor:
    """The nearest powers of two (n, in), around 1; each row once."""
    exponents = scales.log2().round()
    exponents = exponents - exponents.median(1, keepdim=True)[0]
    unique: Tensor = torch.unique(torch.exp2(exponents.clamp(-LARGEST, LARGEST)), dim=0)
    return unique


class SharedSearch:
    """Chooses the scale whose errors, summed over all readers, are least; 1 is a candidate.

    attempts(weight, scale, rounding): ways to store a weight at a scale.
    """

    def __init__(self, weights: Sequence[Tensor], inputs: LayerInputs, attempts: Attempts) -> None:
        self.weights, self.inputs, self.attempts = weights, inputs, attempts

    def best(self, candidates: Tensor, rounding: Rounding) -> list[QuantizedWeight]:
        """One stored weight per reader."""
        least, chosen = float("inf"), []
        for scale in (torch.ones_like(candidates[0]), *candidates):
            found = [self._best_at(weight, scale, rounding) for weight in self.weights]
            total = sum(error for error, _ in found)
            if total < least:
                least, chosen = total, [weight for _, weight in found]
        return chosen

    def _best_at(
        self, weight: Tensor, scale: Tensor, rounding: Rounding
    ) -> tuple[float, QuantizedWeight]:
        stored = self.attempts(weight, scale, rounding)
        return min(
            ((output_loss(each, weight, self.inputs.gram), each) for each in stored),
            key=lambda pair: pair[0],
        )
