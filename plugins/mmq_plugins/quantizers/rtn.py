"""Round to nearest: the baseline that needs no calibration."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mmq.contracts.quantizer import Quantizer, ScaleDtype
from mmq.tensors.affine import SCALE_DTYPES, MappingType
from mmq.tensors.quantized_weight import QuantizedWeight, planned_bits, round_to_nearest


@dataclass(frozen=True)
class Rtn(Quantizer):
    """Round to nearest, with one range per group of inputs, or per row if group_size is 0.

    scale_dtype: dtype in which scales are rounded and stored.
    """

    version: ClassVar[int] = 1

    group_size: int = 0
    symmetric: bool = False
    scale_dtype: ScaleDtype = "float16"

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes between the smallest and the largest weight of every group."""
        mapping, dtype = MappingType.of(self.symmetric), SCALE_DTYPES[self.scale_dtype]
        return round_to_nearest(weight, bits, self.group_size, mapping, dtype)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Codes, zero points of `bits` bits, and scales.

        A layer with scales outside of float16's range (6.1e-5 to 65504) takes more.
        """
        mapping, dtype = MappingType.of(self.symmetric), SCALE_DTYPES[self.scale_dtype]
        return planned_bits(shape, bits, self.group_size, mapping, dtype)
