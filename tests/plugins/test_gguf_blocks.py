"""Every weight that a ggml type accepts is returned bit for bit by gguf's own dequantizer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmq_plugins.targets.gguf import Gguf
from mmq_plugins.targets.gguf_blocks import TYPES, pack, refusal, row_bytes, smallest_type

from mmq.contracts.target import WeightSpec
from mmq.errors import InputError
from mmq.tensors.affine import MappingType
from mmq.tensors.quantized_weight import QuantizedWeight, round_to_nearest

gguf = pytest.importorskip("gguf", reason="needs mmq[gguf]")


def rounded(weight, bits, group_size, symmetric):
    """A weight rounded to nearest."""
    return round_to_nearest(weight, bits, group_size, MappingType.of(symmetric))


def weight_of(rows, columns, seed=0, std=0.05):
    return std * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def read(packed, kind):
    return gguf.quants.dequantize(packed, gguf.GGMLQuantizationType(kind.number))


def random_codes(rows, columns, bits, group, symmetric, seed):
    """Random codes, scales and zero points that include the extremes."""
    rng = torch.Generator().manual_seed(seed)
    groups = columns // (group or columns)
    codes = torch.randint(0, 2**bits, (rows, columns), generator=rng, dtype=torch.uint8)
    codes[0, :2] = torch.tensor([0, 2**bits - 1])
    scale = torch.rand(rows, groups, generator=rng).add_(1e-3).half()
    zero = torch.randint(0, 2**bits, (rows, groups), generator=rng, dtype=torch.uint8)
    zero[0, 0] = 2**bits - 1
    return QuantizedWeight(codes, scale, None if symmetric else zero, group or columns, bits)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 5),
    blocks=st.integers(1, 3),
    bits=st.integers(2, 8),
    group=st.sampled_from([32, 64, 96, 128, 256, 0]),
    symmetric=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_accepted_weights_are_stored_exactly(rows, blocks, bits, group, symmetric, seed):
    columns = blocks * (group or 256)
    weight = random_codes(rows, columns, bits, group, symmetric, seed)
    spec = WeightSpec.of(weight)
    kind = smallest_type(spec, columns)
    assert (kind is None) == (bits == 8 and not symmetric) == bool(refusal(spec, (rows, columns)))
    if kind is not None:
        assert np.array_equal(read(pack(weight, kind), kind), weight.dequantize().numpy())


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_types_have_the_sizes_that_gguf_has_for_them(kind):
    assert (kind.block, kind.size) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind.name]]
    assert gguf.GGMLQuantizationType[kind.name] == kind.number


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("group", [32, 128, 256, 0])
@pytest.mark.parametrize("symmetric", [True, False])
def test_no_smaller_type_holds_it(bits, group, symmetric):
    weight = random_codes(2, 512, bits, group, symmetric, 1)
    spec = WeightSpec.of(weight)
    kind = smallest_type(spec, 512)
    smaller = [t for t in TYPES if t.bits < kind.bits] if kind else list(TYPES)
    for other in smaller:
        fits = not (group or 512) % other.block
        assert not (fits and other.holds(spec))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ((2, 0, True), "TQ2_0"),
        ((2, 256, False), "Q2_K"),
        ((3, 0, True), "Q3_K"),
        ((3, 64, False), "Q4_0"),
        ((4, 32, True), "Q4_0"),
        ((4, 32, False), "Q5_0"),
        ((4, 0, False), "Q4_K"),
        ((5, 128, True), "Q5_0"),
        ((5, 256, False), "Q5_K"),
        ((6, 0, True), "Q6_K"),
        ((6, 64, False), "Q8_0"),
        ((7, 0, False), "Q8_0"),
        ((8, 0, True), "Q8_0"),
    ],
)
def test_the_type_of_common_options(options, name):
    assert smallest_type(WeightSpec.of(rounded(weight_of(4, 512), *options)), 512).name == name


def test_one_scale_per_tensor_with_an_integer_zero_point_is_stored():
    codes = torch.randint(0, 16, (6, 256), dtype=torch.uint8)
    scale, zero = torch.tensor([[0.25]]).half(), torch.tensor([[7]], dtype=torch.uint8)
    weight = QuantizedWeight(codes, scale, zero, 256, 4)
    kind = smallest_type(WeightSpec.of(weight), 256)
    assert np.array_equal(read(pack(weight, kind), kind), weight.dequantize().numpy())


def test_scales_that_need_float32_are_stored_as_products():
    weight = rounded(weight_of(4, 64, std=1e-4), 8, 32, True)
    assert weight.scale.dtype == torch.float32
    kind = smallest_type(WeightSpec.of(weight), 64)
    packed = pack(weight, kind)
    assert kind.name == "F32"
    assert np.array_equal(packed.view(np.float32), weight.dequantize().numpy())


@pytest.mark.parametrize(
    ("spec", "shape", "words"),
    [
        (WeightSpec(8, 32, symmetric=False), (64, 64), "need 9 bits"),
        (WeightSpec(4, 16), (64, 64), "groups of 16 split them"),
        (WeightSpec(4), (64, 48), "rows of 48"),
        (WeightSpec(4, integer_zero_points=False, symmetric=False), (64, 64), "real zero points"),
        (WeightSpec(4, input_scale=True), (64, 64), "scale per input"),
        (WeightSpec(4, 32, group_index=True), (64, 64), "act-order"),
    ],
)
def test_weights_that_no_type_stores_are_refused_with_the_reason(spec, shape, words):
    assert words in Gguf().refusal(spec, shape, "llm")
    with pytest.raises(InputError, match=words):
        Gguf().stored_bits(shape, spec)


@pytest.mark.parametrize("options", [(2, 0, True), (3, 64, False), (6, 0, True), (7, 32, False)])
def test_stored_bits_are_those_of_the_packed_weight(options):
    weight = rounded(weight_of(7, 512), *options)
    spec = WeightSpec.of(weight)
    kind = smallest_type(spec, 512)
    assert Gguf().stored_bits((7, 512), spec) == 8 * pack(weight, kind).nbytes
    assert row_bytes(kind, 512) * 7 == pack(weight, kind).nbytes


def test_an_unquantized_weight_takes_16_bits():
    assert Gguf().stored_bits((3, 5), WeightSpec(16)) == 240


def test_float16_overflow_of_a_scale_is_refused_by_name():
    codes = torch.zeros(1, 32, dtype=torch.uint8)
    weight = QuantizedWeight(codes, torch.tensor([[1e30]], dtype=torch.bfloat16), None, 32, 4)
    kind = smallest_type(WeightSpec.of(weight), 32)
    with pytest.raises(InputError, match="layers.3.fc1: some of its scales"):
        pack(weight, kind, "layers.3.fc1")
