"""The quantizer of embedding tables and output heads, for every quantizer of a study."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from mmq.contracts.quantizer import Quantizer, ScaleDtype
from mmq.tensors.affine import SCALE_DTYPES, MappingType
from mmq.tensors.quantized_weight import QuantizedWeight, planned_bits, round_to_nearest

if TYPE_CHECKING:
    from mmq.models.components import Component


@dataclass(frozen=True)
class RowQuantizer(Quantizer):
    """Round to nearest with one range per row: a token reads one row alone.

    study: the quantizer of other weights. Its options `symmetric` and `scale_dtype` apply, if it
    has them.
    """

    study: Quantizer

    def at(self, bits: int) -> "RowQuantizer":
        """The quantizer with the options of this width."""
        return RowQuantizer(self.study.at(bits))

    @property
    def symmetric(self) -> bool:
        """Whether ranges are symmetric around zero."""
        return bool(getattr(self.study, "symmetric", False))

    @property
    def scale_dtype(self) -> ScaleDtype:
        """The dtype that scales are rounded to."""
        dtype: ScaleDtype = getattr(self.study, "scale_dtype", "float16")
        return dtype

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes in the range of every row."""
        own = self.at(bits)
        mapping, dtype = MappingType.of(own.symmetric), SCALE_DTYPES[own.scale_dtype]
        return round_to_nearest(weight, bits, 0, mapping, dtype)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Codes, scales and, unless symmetric, zero points."""
        own = self.at(bits)
        mapping, dtype = MappingType.of(own.symmetric), SCALE_DTYPES[own.scale_dtype]
        return planned_bits(shape, bits, 0, mapping, dtype)


def quantizer_for(component: "Component", quantizer: Quantizer) -> Quantizer:
    """The quantizer of a component: the given one, or rows for a table."""
    return RowQuantizer(quantizer) if component.per_row else quantizer
