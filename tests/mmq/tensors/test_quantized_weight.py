import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmq.tensors.quantized_weight import QuantizedWeight, pack_codes, unpack_codes


@given(st.integers(2, 8), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
@settings(deadline=None, max_examples=80)
def test_packing_is_exact_and_takes_bits_per_code(bits, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (rows, columns), dtype=torch.uint8, generator=generator)
    packed = pack_codes(codes, bits)
    assert packed.numel() == -(-rows * columns * bits // 8)
    assert torch.equal(unpack_codes(packed, bits, (rows, columns)), codes)


def test_packing_is_exact_across_chunks():
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 8, (1025, 1031), dtype=torch.uint8, generator=generator)
    assert codes.numel() > 1 << 20
    assert torch.equal(unpack_codes(pack_codes(codes, 3), 3, codes.shape), codes)


def test_codes_that_do_not_fit_are_refused():
    codes = torch.tensor([[0, 9]], dtype=torch.uint8)
    with pytest.raises(ValueError, match="9 does not fit in 3 bits"):
        pack_codes(codes, 3)
    with pytest.raises(ValueError, match="9 does not fit in 3 bits"):
        QuantizedWeight(codes, torch.ones(1, 1), None, group_size=2, bits=3)


def test_a_missing_zero_point_is_the_middle_code():
    codes = torch.tensor([[0, 4, 7]], dtype=torch.uint8)
    weight = QuantizedWeight(codes, torch.tensor([[0.5]]), None, group_size=3, bits=3)
    assert weight.dequantize().tolist() == [[-2.0, 0.0, 1.5]]


def test_the_input_scale_is_undone_in_the_plain_weight():
    codes = torch.tensor([[6, 6]], dtype=torch.uint8)
    weight = QuantizedWeight(
        codes, torch.ones(1, 1), None, group_size=2, bits=3, input_scale=torch.tensor([1.0, 4.0])
    )
    assert weight.dequantize().tolist() == [[2.0, 0.5]]


def test_stored_bits_are_those_of_the_packed_tensors():
    codes = torch.zeros(4, 64, dtype=torch.uint8)
    scale = torch.ones(4, 2, dtype=torch.float16)
    zero_point = torch.zeros(4, 2, dtype=torch.uint8)
    weight = QuantizedWeight(codes, scale, zero_point, group_size=32, bits=3)
    assert weight.stored_bits == 4 * 64 * 3 + 8 * 16 + 8 * 3


@pytest.mark.parametrize("shape", [(3, 1), (4, 3), (1, 2)])
def test_scales_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="scale: shape"):
        QuantizedWeight(
            torch.zeros(4, 64, dtype=torch.uint8), torch.ones(shape), None, group_size=32, bits=4
        )


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_invalid_scales_are_refused(value):
    codes, scale = torch.zeros(4, 8, dtype=torch.uint8), torch.full((4, 1), value)
    with pytest.raises(ValueError, match="zero, negative or not finite"):
        QuantizedWeight(codes, scale, None, group_size=8, bits=4)


def test_a_16_bit_weight_is_not_a_quantized_weight():
    with pytest.raises(ValueError, match="16 bits is not quantized"):
        QuantizedWeight(
            torch.zeros(4, 8, dtype=torch.uint8), torch.ones(4, 1), None, group_size=8, bits=16
        )
