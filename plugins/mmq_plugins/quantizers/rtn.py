"""Round to nearest: the baseline that needs no calibration."""

from dataclasses import dataclass

from torch import Tensor

from mmq import affine
from mmq.contracts import Quantizer
from mmq.quantized import QuantizedWeight, compact


@dataclass(frozen=True)
class Rtn(Quantizer):
    """Round to nearest with a range per group of inputs, or per row where group_size is 0."""

    group_size: int = 0
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.group_size < 0:
            raise ValueError(f"group_size: {self.group_size} is negative; 0 is one group a row")

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes of every group between its own smallest and largest weight."""
        size = self.group_size or weight.shape[1]
        scale, zero_point = affine.choose_qparams(weight, bits, size, self.symmetric)
        codes = affine.quantize(weight, scale, zero_point, bits)
        return compact(codes, scale, zero_point, size, bits, self.symmetric)
