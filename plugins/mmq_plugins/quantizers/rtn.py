"""Round to nearest: the baseline that needs no calibration."""

from dataclasses import dataclass

from torch import Tensor

from mmq.contracts.quantizer import Quantizer
from mmq.tensors.quantized_weight import QuantizedWeight, planned_bits, round_to_nearest


@dataclass(frozen=True)
class Rtn(Quantizer):
    """Round to nearest with a range per group of inputs, or per row where group_size is 0."""

    group_size: int = 0
    symmetric: bool = False

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes of every group between its own smallest and largest weight."""
        return round_to_nearest(weight, bits, self.group_size, self.symmetric)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Codes and zero points of `bits` bits, float16 scales.

        Weights whose scales float16 cannot hold (below 6e-5, above 65504) take float32 ones.
        """
        return planned_bits(shape, bits, self.group_size, self.symmetric)
