import pytest
import torch
from mmq_plugins.quantizers.rtn import Rtn
from mmq_plugins.quantizers.uniform import Uniform

from mmq.errors import InputError
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


def test_uniform_stores_one_scale_a_tensor():
    quantized = Uniform().quantize(torch.randn(32, 64), 4)
    assert quantized.scale.shape == (1, 1)
    assert quantized.stored_bits == 32 * 64 * 4 + 2 * 32


def test_a_weight_beyond_float16_keeps_float32_scales():
    weight = torch.randn(4, 64)
    weight[1, 3] = 1e8
    plain = Rtn().quantize(weight, 4).dequantize()
    assert torch.isfinite(plain).all()
    assert plain[1, 3] == pytest.approx(1e8, rel=0.1)
