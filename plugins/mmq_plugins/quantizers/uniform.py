"""Uniform quantization of the paper: one range a tensor."""

from dataclasses import dataclass

from torch import Tensor

from mmq.contracts.quantizer import Quantizer
from mmq.tensors import affine
from mmq.tensors.quantized_weight import QuantizedWeight


@dataclass(frozen=True)
class Uniform(Quantizer):
    """Per-tensor min/max quantization (paper, appendix A.1); no options."""

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes between the tensor's smallest and largest weight."""
        scale, zero_point = affine.choose_tensor_qparams(weight, bits)
        codes = affine.quantize(weight, scale, zero_point, bits)
        return QuantizedWeight(codes, scale, zero_point, group_size=weight.shape[1], bits=bits)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Codes, and one scale and one zero point in float32."""
        return shape[0] * shape[1] * bits + 2 * 32
