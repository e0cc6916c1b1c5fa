import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmq.tensors import affine

WIDTHS = st.sampled_from([2, 3, 4, 5, 6, 7, 8])


def weights(rows=6, columns=32, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, columns, generator=generator)


def roundtrip(weight, bits, group_size, symmetric):
    scale, zero_point = affine.choose_qparams(weight, bits, group_size, symmetric)
    codes = affine.quantize(weight, scale, zero_point, bits)
    return affine.dequantize(codes, scale, zero_point), scale


@given(
    WIDTHS, st.sampled_from([8, 16, 32]), st.booleans(), st.integers(0, 50), st.integers(-12, 3)
)
@settings(deadline=None, max_examples=60)
def test_no_weight_moves_by_more_than_its_groups_step(bits, group_size, symmetric, seed, power):
    weight = weights(scale=2.0**power, seed=seed)
    plain, scale = roundtrip(weight, bits, group_size, symmetric)
    # half a step from rounding; float16 scales and the integer zero point shift the range's ends
    step = scale.repeat_interleave(group_size, dim=1)
    assert ((plain - weight).abs() <= 1.01 * step + 1e-6).all()


@given(WIDTHS, st.integers(0, 20))
@settings(deadline=None, max_examples=30)
def test_uniform_equals_the_papers_formula(bits, seed):
    weight = weights(seed=seed)
    scale, zero_point = affine.choose_tensor_qparams(weight, bits)
    plain = affine.dequantize(affine.quantize(weight, scale, zero_point, bits), scale, zero_point)
    low, high = weight.double().min(), weight.double().max()
    normalized = (weight.double() - low) / (high - low)
    x_hat = torch.round(normalized * (2**bits - 1)) / (2**bits - 1)
    expected = (high - low) * x_hat + low
    step = (high - low) / (2**bits - 1)
    away = (plain - expected).abs()
    assert (away < 1e-5).float().mean() > 0.99  # a tie may round the other way in float32
    assert (away <= 1.001 * step).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -3.25, 1e-8])
def test_a_constant_tensor_is_kept_exactly(value):
    weight = torch.full((4, 8), value)
    scale, zero_point = affine.choose_tensor_qparams(weight, 4)
    codes = affine.quantize(weight, scale, zero_point, 4)
    assert torch.equal(affine.dequantize(codes, scale, zero_point), weight)


def test_an_all_zero_group_stays_zero_beside_others():
    weight = weights()
    weight[:, :16] = 0
    plain, _ = roundtrip(weight, 3, 16, symmetric=False)
    assert torch.equal(plain[:, :16], torch.zeros(6, 16))


def test_scales_too_small_for_float16_stay_float32():
    weight = weights(scale=1e-7)
    plain, scale = roundtrip(weight, 8, 32, symmetric=False)
    assert not torch.equal(scale.half().float(), scale)
    assert (plain - weight).norm() < 0.02 * weight.norm()


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="12 does not divide 32"):
        affine.choose_qparams(weights(), 4, 12, symmetric=False)
