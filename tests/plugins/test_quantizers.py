from dataclasses import dataclass

import pytest
import torch
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn
from mmq_plugins.quantizers.uniform import Uniform

from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer
from mmq.errors import InputError
from mmq.tensors.affine import SCALE_DTYPES, MappingType
from mmq.tensors.layer_inputs import LayerInputs
from mmq.tensors.quantized_weight import round_to_nearest
from mmq.testing import QuantizerContract


class TestUniform(QuantizerContract):
    def make(self):
        return Uniform()


class TestRtnPerRow(QuantizerContract):
    def make(self):
        return Rtn()


class TestRtnGroups(QuantizerContract):
    def make(self):
        return Rtn(group_size=32)


class TestRtnSymmetric(QuantizerContract):
    def make(self):
        return Rtn(group_size=64, symmetric=True)


def error(quantizer, bits):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(64, 256, generator=generator)
    weight[:, 7] *= 10  # an outlier channel
    weight *= torch.linspace(0.5, 2, 64)[:, None]  # rows of different range
    return float((quantizer.quantize(weight, bits).dequantize() - weight).norm())


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_finer_ranges_are_better(bits):
    assert error(Rtn(group_size=32), bits) < error(Rtn(), bits) < error(Uniform(), bits)


def test_group_size_that_does_not_divide_is_refused_by_name():
    with pytest.raises(InputError, match="48 does not divide the 128 inputs of a.layer"):
        Rtn(group_size=48).check("a.layer", (64, 128))


def test_negative_group_size_is_refused():
    with pytest.raises(ValueError, match="-1 is negative"):
        Rtn(group_size=-1)


def test_an_unknown_scale_dtype_lists_the_valid_ones():
    with pytest.raises(
        ValueError, match="'int8' is not valid; choose from float16, float16-only, b"
    ):
        Rtn(scale_dtype="int8")


def test_uniform_stores_one_scale_per_tensor():
    quantized = Uniform().quantize(torch.randn(32, 64), 4)
    assert quantized.scale.shape == (1, 1)
    assert quantized.stored_bits == 32 * 64 * 4 + 2 * 32


def test_a_weight_beyond_float16_keeps_float32_scales():
    weight = torch.randn(4, 64)
    weight[1, 3] = 1e8
    plain = Rtn().quantize(weight, 4).dequantize()
    assert torch.isfinite(plain).all()
    assert plain[1, 3] == pytest.approx(1e8, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 16), (7, 176), (65, 48)])
@pytest.mark.parametrize("group_size", [0, 16])
@pytest.mark.parametrize("symmetric", [False, True])
def test_sizes_are_planned_exactly_whatever_shape_and_options(shape, group_size, symmetric):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    inputs = LayerInputs(shape[1])
    inputs.update_(
        torch.randn(40, shape[1]) * torch.linspace(1, 5, shape[1])
    )  # the last is rounded first
    quantizers = [Rtn(group_size, symmetric, dtype) for dtype in SCALE_DTYPES]
    quantizers.append(Uniform())
    solvers = [
        Gptq(group_size=group_size, symmetric=symmetric, static_groups=static, scale_dtype=dtype)
        for static in (False, True)
        for dtype in SCALE_DTYPES
    ]
    for bits in (2, 3, 7, 8):
        for quantizer in quantizers:
            stored = quantizer.quantize(weight, bits).stored_bits
            assert quantizer.stored_bits(shape, bits) == stored
        for quantizer in solvers:
            stored = quantizer.solve([weight], inputs, [bits])[0][bits].weight.stored_bits
            assert quantizer.stored_bits(shape, bits) == stored


def test_a_quantizer_without_a_formula_is_planned_by_what_it_stores():
    @dataclass(frozen=True)
    class Plain(Quantizer):
        def quantize(self, weight, bits):
            return round_to_nearest(weight, bits, 8, MappingType.SYMMETRIC)

    for shape in ((3, 16), (500, 64)):
        assert Plain().stored_bits(shape, 5) == Rtn(8, symmetric=True).stored_bits(shape, 5)


@pytest.mark.parametrize("factor", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
@pytest.mark.parametrize("kind", [Rtn, Gptq, Awq])
def test_codes_are_those_of_the_scales_that_are_stored(kind, scale_dtype, factor):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 64, generator=generator) * factor
    x = torch.randn(300, 64, generator=generator)
    quantizer = kind(group_size=16, scale_dtype=scale_dtype)
    if isinstance(quantizer, CalibratedQuantizer):
        inputs = LayerInputs(64)
        inputs.update_(x)
        quantized = quantizer.solve([weight], inputs, [8])[0][8].weight
    else:
        quantized = quantizer.quantize(weight, 8)
    fits = factor == 1 or scale_dtype not in ("float16", "float16-only")  # raised by blocks
    assert quantized.scale.dtype == (SCALE_DTYPES[scale_dtype] if fits else torch.float32)
    assert (
        quantized.stored_bits >= quantizer.stored_bits((8, 64), 8) - 16 * 64
    )  # AWQ may not scale
    lost = float((x @ (quantized.dequantize() - weight).T).norm() / (x @ weight.T).norm())
    assert lost < 0.02


def test_scales_outside_float16_take_more_than_planned():
    small = torch.randn(8, 64) * 1e-6
    assert Rtn().quantize(small, 8).stored_bits > Rtn().stored_bits((8, 64), 8)
