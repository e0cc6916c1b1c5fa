"""The quantizer of embedding tables and output heads, for every quantizer of a study."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmq.contracts.quantizer import Quantizer
from mmq.tensors.affine import MappingType
from mmq.tensors.quantized_weight import QuantizedWeight, planned_bits, round_to_nearest

if TYPE_CHECKING:
    from mmq.models.components import Component


@dataclass(frozen=True)
class RowQuantizer(Quantizer):
    """Round to nearest with one range per row: a token reads one row alone."""

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes between the smallest and the largest weight of every row."""
        return round_to_nearest(weight, bits)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Codes, zero points and float16 scales."""
        return planned_bits(shape, bits, 0, MappingType.ASYMMETRIC, torch.float16)


def quantizer_for(component: "Component", quantizer: Quantizer) -> Quantizer:
    """The quantizer of a component: the given one, or rows for a table."""
    return RowQuantizer() if component.per_row else quantizer
