"""Uniform quantization of the paper: one range per tensor."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mmq.contracts.quantizer import Quantizer
from mmq.tensors import affine
from mmq.tensors.quantized_weight import QuantizedWeight


@dataclass(frozen=True)
class Uniform(Quantizer):
    """Per-tensor min/max quantization (paper, appendix A.1); no options."""

    version: ClassVar[int] = 1

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes between the tensor's smallest and largest weight.

        Paper, appendix A.1: x_hat = round((x - w_min) / (w_max - w_min) * (2^k - 1)) / (2^k - 1)
        and Q(x) = (w_max - w_min) * x_hat + w_min (the sign printed in the paper's last formula
        does not undo its own normalization). A constant tensor stays exact.
        """
        low, high = (limit.float().reshape(1, 1) for limit in (weight.min(), weight.max()))
        mapping = affine.MappingType.REAL_ZERO_POINT
        scale, zero_point = affine.choose_qparams(low, high, bits, mapping)
        codes = affine.quantize(weight, scale, zero_point, bits)
        return QuantizedWeight(codes, scale, zero_point, group_size=weight.shape[1], bits=bits)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Codes, and one scale and one zero point in float32."""
        return shape[0] * shape[1] * bits + 2 * 32
