"""The contracts of every quantizer and of every calibrated one."""

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer
from mmq.tensors.layer_inputs import LayerInputs, output_error
from mmq.tensors.quantized_weight import QuantizedWeight

WIDTHS = (2, 3, 4, 5, 6, 7, 8)
SOLVED = (2, 3, 4, 8)  # widths that calibrated quantizers are compared at
SHAPES = ((64, 128), (192, 256))  # (outputs, inputs)


def _weight(seed: int = 0, shape: tuple[int, int] = (48, 128)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _error(quantizer: Quantizer, weight: Tensor, bits: int) -> float:
    return float((quantizer.quantize(weight, bits).dequantize() - weight).norm())


def _activations(columns: int = 128, tokens: int = 64) -> Tensor:
    """A layer's inputs, (tokens, in): some are larger than others, some are correlated."""
    generator = torch.Generator().manual_seed(1)
    sizes = torch.rand(columns, generator=generator).mul(5).exp()
    x = torch.randn(tokens, columns, generator=generator)
    x[:, ::5] += x[:, :1]
    return x * sizes


def _summed(x: Tensor, quantizer: CalibratedQuantizer) -> LayerInputs:
    inputs = LayerInputs(x.shape[1], max_rows=quantizer.sampled_inputs)
    inputs.update_(x)
    return inputs


def _quantized(quantizer: Quantizer, weight: Tensor) -> dict[int, QuantizedWeight]:
    """Codes at every width, as a study computes them."""
    if not isinstance(quantizer, CalibratedQuantizer):
        return {bits: quantizer.quantize(weight, bits) for bits in WIDTHS}
    inputs = _summed(_activations(weight.shape[1]), quantizer)
    (solved,) = quantizer.solve([weight], inputs, WIDTHS)
    return {bits: one.weight for bits, one in solved.items()}


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

    def test_the_dequantized_weight_is_finite_and_has_the_weights_shape(self) -> None:
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
    def test_half_precision_weights_are_quantized(self, dtype: torch.dtype) -> None:
        weight = _weight().to(dtype)
        plain = self.make().quantize(weight, 8).dequantize()
        assert float((plain - weight.float()).norm()) < 0.05 * float(weight.float().norm())

    def test_the_weight_is_unchanged_and_the_codes_are_the_same_again(self) -> None:
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

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_weights_that_are_not_finite_are_refused(self, value: float) -> None:
        weight = _weight()
        weight[3, 5] = value
        with pytest.raises(ValueError, match="finite"):
            self.make().quantize(weight, 4)

    def test_stored_bits_count_more_than_the_codes(self) -> None:
        quantized = self.make().quantize(_weight(), 3)
        assert quantized.stored_bits > quantized.codes.numel() * 3


_WEIGHT = _weight(shape=(64, 128))
ODD_WEIGHTS = {
    "zero": torch.zeros(64, 128),
    "constant": torch.full((64, 128), -0.3),
    "some rows zero": _WEIGHT * (torch.arange(64) % 2)[:, None],
}
ODD_ACTIVATIONS = {
    "no tokens": torch.zeros(0, 128),
    "zero": torch.zeros(9, 128),
    "constant": torch.full((9, 128), 0.7),
    "one token": _activations(tokens=1),
    "half of the inputs dead": _activations() * (torch.arange(128) % 2),
    "some NaN": torch.where(torch.arange(64)[:, None] % 9 == 0, math.nan, _activations()),
    "some infinite": torch.where(torch.arange(64)[:, None] % 9 == 0, math.inf, _activations()),
    "all NaN": torch.full((9, 128), math.nan),
    "overflowing": _activations() * 1e25,
}
NO_INFORMATION = ("no tokens", "zero", "all NaN", "overflowing")


class CalibratedQuantizerContract(QuantizerContract):
    """Subclass it and implement `make`; the layers here have 64 outputs and 128 inputs."""

    differing_codes: ClassVar[float] = 0.0
    """Share of codes that may differ between widths solved together and alone. Above 0 only if the
    solver multiplies matrices whose shapes depend on this, which may change the last bit."""

    @abstractmethod
    def make(self) -> CalibratedQuantizer:
        """The quantizer under test, with options that make it quick."""

    def _solve(
        self, weight: Tensor, x: Tensor, widths: tuple[int, ...] = SOLVED
    ) -> dict[int, QuantizedWeight]:
        quantizer = self.make()
        (solved,) = quantizer.solve([weight], _summed(x, quantizer), widths)
        assert list(solved) == list(widths)
        return {bits: one.weight for bits, one in solved.items()}

    def test_widths_and_layers_solved_together_equal_each_alone(self) -> None:
        quantizer, weights = self.make(), [_WEIGHT, _weight(seed=1, shape=(64, 128))]
        together = quantizer.solve(weights, _summed(_activations(), quantizer), SOLVED)
        assert len(together) == len(weights)
        for weight, solved in zip(weights, together, strict=True):
            for bits in SOLVED:
                alone = self._solve(weight, _activations(), (bits,))[bits]
                differ = (solved[bits].weight.codes != alone.codes).float().mean()
                assert float(differ) <= self.differing_codes

    def test_outputs_for_the_calibration_inputs_are_no_worse_than_by_rounding(self) -> None:
        quantizer, x = self.make(), _activations(tokens=400)
        gram = _summed(x, quantizer).gram
        for bits, solved in self._solve(_WEIGHT, x).items():
            nearest = quantizer.quantize(_WEIGHT, bits).dequantize()
            ours, theirs = (
                output_error(_WEIGHT, plain, gram) for plain in (solved.dequantize(), nearest)
            )
            assert ours <= theirs * (1 + 1e-6), bits

    @pytest.mark.parametrize("name", ODD_WEIGHTS)
    def test_odd_weights_give_finite_codes_that_are_close(self, name: str) -> None:
        weight = ODD_WEIGHTS[name]
        for bits, solved in self._solve(weight, _activations(tokens=400)).items():
            plain = solved.dequantize()
            assert torch.isfinite(plain).all()
            if bits == 8:
                assert float((plain - weight).norm()) <= 0.1 * float(weight.norm())

    @pytest.mark.parametrize("name", ODD_ACTIVATIONS)
    def test_odd_activations_give_finite_codes(self, name: str) -> None:
        quantizer = self.make()
        inputs = _summed(ODD_ACTIVATIONS[name], quantizer)
        (solved,) = quantizer.solve([_WEIGHT], inputs, (2, 8))
        for bits, one in solved.items():
            assert torch.isfinite(one.weight.dequantize()).all()
            if name in NO_INFORMATION:
                assert one.note, "a layer without calibration data needs a note"
                nearest = quantizer.quantize(_WEIGHT, bits)
                assert torch.equal(one.weight.codes, nearest.codes)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_solving_refuses_weights_that_are_not_finite(self, value: float) -> None:
        weight = _WEIGHT.clone()
        weight[3, 5] = value
        with pytest.raises(ValueError, match="finite"):
            self._solve(weight, _activations())

    def test_solving_changes_no_argument_and_gives_the_same_again(self) -> None:
        quantizer, weight = self.make(), _WEIGHT.clone()
        inputs = _summed(_activations(), quantizer)
        gram = inputs.gram.clone()
        first, second = (quantizer.solve([weight], inputs, SOLVED)[0] for _ in range(2))
        assert torch.equal(weight, _WEIGHT)
        assert torch.equal(inputs.gram, gram)
        for bits in SOLVED:
            assert torch.equal(first[bits].weight.codes, second[bits].weight.codes)
            assert torch.equal(first[bits].weight.dequantize(), second[bits].weight.dequantize())
