import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmq.tensors import affine
from mmq.tensors.affine import MappingType

WIDTHS = st.sampled_from([2, 3, 4, 5, 6, 7, 8])
INTEGER_ZERO_POINTS = [m for m in MappingType if m is not MappingType.REAL_ZERO_POINT]


def weights(rows=6, columns=32, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, columns, generator=generator)


def qparams(weight, bits, group_size, mapping, scale_dtype=torch.float16):
    limits = affine.value_range(affine.grouped(weight, group_size))
    return affine.choose_qparams(*limits, bits, mapping, scale_dtype)


def of_tensor(weight, bits):
    limits = (limit.reshape(1, 1) for limit in (weight.min(), weight.max()))
    return affine.choose_qparams(*limits, bits, MappingType.REAL_ZERO_POINT)


def roundtrip(weight, bits, group_size, mapping):
    scale, zero_point = qparams(weight, bits, group_size, mapping)
    codes = affine.quantize(weight, scale, zero_point, bits)
    return affine.dequantize(codes, scale, zero_point), scale


@given(
    WIDTHS,
    st.sampled_from([8, 16, 32]),
    st.sampled_from(INTEGER_ZERO_POINTS),
    st.integers(0, 50),
    st.integers(-12, 3),
)
@settings(deadline=None, max_examples=60)
def test_no_weight_moves_by_more_than_its_groups_step(bits, group_size, mapping, seed, power):
    weight = weights(scale=2.0**power, seed=seed)
    plain, scale = roundtrip(weight, bits, group_size, mapping)
    # half a step from rounding; float16 scales and the integer zero point shift the range's ends
    step = scale.repeat_interleave(group_size, dim=1)
    assert ((plain - weight).abs() <= 1.01 * step + 1e-6).all()


@given(WIDTHS, st.integers(0, 20))
@settings(deadline=None, max_examples=30)
def test_uniform_equals_the_papers_formula(bits, seed):
    weight = weights(seed=seed)
    scale, zero_point = of_tensor(weight, bits)
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
def test_a_constant_tensor_is_represented_exactly(value):
    weight = torch.full((4, 8), value)
    scale, zero_point = of_tensor(weight, 4)
    codes = affine.quantize(weight, scale, zero_point, 4)
    assert torch.equal(affine.dequantize(codes, scale, zero_point), weight)


def test_an_all_zero_group_stays_zero_beside_others():
    weight = weights()
    weight[:, :16] = 0
    plain, _ = roundtrip(weight, 3, 16, MappingType.ASYMMETRIC)
    assert torch.equal(plain[:, :16], torch.zeros(6, 16))


@pytest.mark.parametrize(
    ("mapping", "scale", "zero_point", "codes"),
    [
        (MappingType.ASYMMETRIC, 12 / 7, 4, [0, 4, 7]),
        (MappingType.SYMMETRIC, 14 / 7, 4, [0, 4, 6]),
        (MappingType.SYMMETRIC_NO_CLIPPING, 7 / 3, 4, [1, 4, 6]),
        (MappingType.REAL_ZERO_POINT, 12 / 7, 7 * 7 / 12, [0, 4, 7]),
    ],
)
def test_each_mapping_of_minus_seven_to_five_at_three_bits(mapping, scale, zero_point, codes):
    weight = torch.tensor([[-7.0, 0.0, 5.0]])
    result = affine.choose_qparams(torch.tensor([[-7.0]]), torch.tensor([[5.0]]), 3, mapping)
    assert [float(t) for t in result] == pytest.approx([scale, zero_point])
    assert affine.quantize(weight, *result, 3).tolist() == [codes]


@pytest.mark.parametrize("mapping", MappingType)
def test_all_widths_at_once_equal_each_alone(mapping):
    low, high = affine.value_range(weights())
    widths = torch.tensor([[2.0], [3.0], [8.0]])
    together = affine.choose_qparams(low, high, widths, mapping, torch.float16)
    for row, bits in enumerate((2, 3, 8)):
        alone = affine.choose_qparams(low, high, bits, mapping, torch.float16)
        for all_widths, one in zip(together, alone, strict=True):
            assert torch.equal(all_widths[row], one)


def test_a_symmetric_range_spans_every_code_and_without_clipping_all_but_one():
    weight = torch.tensor([[-1.0, 1.0]])
    for mapping, ends in (
        (MappingType.SYMMETRIC, [-1.0666, 0.9333]),
        (MappingType.SYMMETRIC_NO_CLIPPING, [-1.0, 1.0]),
    ):
        plain, _ = roundtrip(weight, 4, 2, mapping)
        assert plain[0].tolist() == pytest.approx(ends, abs=1e-3)


@given(st.sampled_from(list(affine.SCALE_DTYPES.values())), st.integers(-40, 30))
def test_scales_are_numbers_of_their_dtype_or_a_layer_stores_float32(dtype, power):
    scale, _ = qparams(weights(scale=2.0**power), 4, 8, MappingType.ASYMMETRIC, dtype)
    stored = affine.stored_scale(scale, dtype)
    assert torch.equal(stored.float(), scale)  # what codes were chosen with is what is stored
    limits = torch.finfo(dtype)
    fits = bool((scale >= limits.tiny).all() and (scale <= limits.max).all())
    assert stored.dtype == (dtype if fits else torch.float32)


def test_scales_that_fit_are_rounded_beside_others_that_do_not():
    exact = torch.tensor([0.1, 1e-7, 1e6])
    rounded = affine.round_scale(exact, torch.float16)
    assert rounded[0] == exact[0].half() != exact[0]
    assert torch.equal(rounded[1:], exact[1:])


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="12 does not divide 32"):
        affine.grouped(weights(), 12)
