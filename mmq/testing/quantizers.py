"""What every quantizer must hold."""

import dataclasses
from abc import ABC, abstractmethod

import pytest
import torch
from torch import Tensor

from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer
from mmq.tensors.layer_inputs import LayerInputs
from mmq.tensors.quantized_weight import QuantizedWeight

WIDTHS = (2, 3, 4, 5, 6, 7, 8)
SHAPES = ((64, 128), (192, 256))  # (outputs, inputs)


def _weight(seed: int = 0, shape: tuple[int, int] = (48, 128)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _error(quantizer: Quantizer, weight: Tensor, bits: int) -> float:
    return float((quantizer.quantize(weight, bits).dequantize() - weight).norm())


def _quantized(quantizer: Quantizer, weight: Tensor) -> dict[int, QuantizedWeight]:
    """Codes at every width, as a study makes them: some inputs are larger than others."""
    if not isinstance(quantizer, CalibratedQuantizer):
        return {bits: quantizer.quantize(weight, bits) for bits in WIDTHS}
    generator = torch.Generator().manual_seed(1)
    inputs = LayerInputs(weight.shape[1], keep=quantizer.sampled_inputs)
    sizes = torch.rand(weight.shape[1], generator=generator).mul(5).exp()
    inputs.update_(torch.randn(64, weight.shape[1], generator=generator) * sizes)
    (solved,) = quantizer.solve([weight], inputs, WIDTHS)
    return {bits: found.weight for bits, found in solved.items()}


class QuantizerContract(ABC):
    """Subclass it and implement `make`."""

    @abstractmethod
    def make(self) -> Quantizer:
        """The quantizer under test; it must accept layers with 128 inputs."""

    def test_is_a_frozen_dataclass_of_options(self) -> None:
        quantizer = self.make()
        assert isinstance(quantizer, Quantizer)
        assert dataclasses.is_dataclass(quantizer)
        assert quantizer == dataclasses.replace(quantizer)

    @pytest.mark.parametrize("bits", WIDTHS)
    def test_codes_fit_their_bits(self, bits: int) -> None:
        quantized = self.make().quantize(_weight(), bits)
        assert quantized.bits == bits
        assert quantized.codes.dtype == torch.uint8
        assert int(quantized.codes.max()) < 2**bits

    @pytest.mark.parametrize("bits", WIDTHS)
    def test_packing_loses_nothing(self, bits: int) -> None:
        quantized = self.make().quantize(_weight(), bits)
        again = QuantizedWeight.from_tensors(quantized.to_tensors())
        assert torch.equal(again.codes, quantized.codes)
        assert torch.equal(again.dequantize(), quantized.dequantize())
        assert again.stored_bits == quantized.stored_bits

    def test_what_is_written_is_finite_and_has_the_weights_shape(self) -> None:
        plain = self.make().quantize(_weight(), 3).dequantize()
        assert plain.shape == (48, 128)
        assert torch.isfinite(plain).all()

    def test_more_bits_are_never_worse(self) -> None:
        quantizer, weight = self.make(), _weight()
        errors = [_error(quantizer, weight, bits) for bits in WIDTHS]
        assert errors == sorted(errors, reverse=True)

    def test_eight_bits_are_close(self) -> None:
        weight = _weight()
        assert _error(self.make(), weight, 8) < 0.05 * float(weight.norm())

    @pytest.mark.parametrize("value", [0.0, 0.75, -2.0])
    def test_a_constant_weight_stays_finite_and_close(self, value: float) -> None:
        weight = torch.full((8, 128), value)
        plain = self.make().quantize(weight, 4).dequantize()
        assert torch.allclose(plain, weight, atol=abs(value) / 8 + 1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_weights_are_taken(self, dtype: torch.dtype) -> None:
        weight = _weight().to(dtype)
        plain = self.make().quantize(weight, 8).dequantize()
        assert float((plain - weight.float()).norm()) < 0.05 * float(weight.float().norm())

    def test_the_weight_is_left_alone_and_the_answer_is_the_same_again(self) -> None:
        quantizer, weight = self.make(), _weight()
        first = quantizer.quantize(weight, 3)
        assert torch.equal(weight, _weight())
        assert torch.equal(first.codes, quantizer.quantize(weight, 3).codes)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_the_planned_size_is_what_is_stored(self, shape: tuple[int, int]) -> None:
        quantizer = self.make()
        quantized = _quantized(quantizer, _weight(shape=shape))
        planned = {bits: quantizer.stored_bits(shape, bits) for bits in WIDTHS}
        assert planned == {bits: weight.stored_bits for bits, weight in quantized.items()}

    def test_stored_bits_count_more_than_the_codes(self) -> None:
        quantized = self.make().quantize(_weight(), 3)
        assert quantized.stored_bits > quantized.codes.numel() * 3
