"""Properties of mmq's AWQ."""

import itertools

import pytest
import torch
from awq_cases import KINDS, WIDTHS, draw, inputs_of, loss, quarter
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.awq_errors import squared_errors_, trust
from mmq_plugins.quantizers.awq_search import (
    candidate_scales,
    relative_magnitude,
    storable,
)
from mmq_plugins.quantizers.rtn import Rtn

from mmq.tensors.affine import MappingType
from mmq.tensors.layer_inputs import LayerInputs, output_error
from mmq.testing import CalibratedQuantizerContract


class TestAwqContract(CalibratedQuantizerContract):
    def make(self):
        return Awq()


class TestAwqSymmetricContract(CalibratedQuantizerContract):
    def make(self):
        return Awq(group_size=0, symmetric=True, clip=False)


# --- properties ----------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_output_errors_never_exceed_those_of_round_to_nearest(kind, scale_dtype):
    weight, x, _ = draw(kind, tokens=300, rows=40)
    number = KINDS.index(kind) + 2 * (scale_dtype == "float16")
    for group_size, symmetric, duo_scaling in quarter(number):
        quantizer = Awq(
            group_size=group_size,
            symmetric=symmetric,
            duo_scaling=duo_scaling,
            scale_dtype=scale_dtype,
        )
        solved = quantizer.solve([weight], inputs_of(x), (2, 3, 4, 8))[0]
        for bits, result in solved.items():
            plain = Rtn(group_size=group_size, symmetric=symmetric).quantize(weight, bits)
            ours = loss(weight, result.weight.dequantize(), x)
            assert ours <= loss(weight, plain.dequantize(), x) * (1 + 1e-6)
            assert result.note == ""


def test_scaling_alone_changes_no_function():
    weight, x, _ = draw("outliers")
    scales = candidate_scales(x.abs().mean(0), relative_magnitude(weight, 128), 20)
    for scale in (*scales, *storable(scales, weight, torch.float16)):
        assert torch.allclose(weight * scale / scale, weight, rtol=1e-6, atol=0)
        assert torch.isfinite(scale).all()


def test_stored_scales_are_normal_float16_numbers_for_any_inputs():
    weight = torch.randn(8, 64) * 0.05
    for magnitude in (torch.zeros(64), torch.full((64,), 1e-30), torch.logspace(-20, 20, 64)):
        for duo in (None, relative_magnitude(weight, 32), torch.zeros(64)):
            scales = storable(candidate_scales(magnitude, duo, 20), weight, torch.float16)
            assert torch.equal(scales.half().float(), scales)
            assert bool((scales >= torch.finfo(torch.float16).tiny).all())


def test_all_widths_and_layers_at_once_are_the_same_as_each_alone():
    weight, x, _ = draw("correlated")
    other = draw("correlated", seed=1, rows=32)[0]
    together = Awq().solve([weight, other], inputs_of(x), WIDTHS)
    for given, solved in zip((weight, other), together, strict=True):
        for bits in WIDTHS:
            alone = Awq().solve([given], inputs_of(x), [bits])[0][bits].weight
            assert torch.equal(solved[bits].weight.dequantize(), alone.dequantize())


def test_every_option_makes_a_difference():
    weight, x, _ = draw("correlated")
    given = (
        {},
        {"group_size": 32},
        {"symmetric": True},
        {"symmetric_no_clipping": True},
        {"duo_scaling": False},
        {"clip": False},
        {"grid": 3},
        {"scale_dtype": "bfloat16"},
        {"scale_dtype": "float32"},
    )
    solved = [Awq(**options).solve([weight], inputs_of(x), [3])[0][3].weight for options in given]
    for one, another in itertools.combinations(solved, 2):
        assert not torch.equal(one.dequantize(), another.dequantize())


def test_scales_are_stored_in_half_precision_and_counted():
    weight, x, _ = draw("outliers")
    result = Awq().solve([weight], inputs_of(x), [3])[0][3].weight
    assert result.scale.dtype == result.input_scale.dtype == torch.float16
    groups = weight.numel() // 128
    assert result.stored_bits == weight.numel() * 3 + groups * (16 + 3) + weight.shape[1] * 16


def test_errors_from_the_gram_matrix_are_those_of_the_outputs():
    weight, x, _ = draw("correlated", columns=600)
    for size in (1, 3, 64, 257, 600):
        d, gram = weight[:, :size], x[:, :size].double().T @ x[:, :size].double()
        expected = (x[:, :size].double() @ d.double().T).square().sum(0)
        result = squared_errors_(d.clone(), gram.float())  # it is used up
        assert torch.allclose(result.double(), expected, rtol=1e-4)


def test_correlations_count_only_with_many_inputs():
    few, many = draw("independent")[1], draw("correlated")[1]
    assert trust(few.T @ few, len(few)) < 0.1
    assert trust(many.T @ many, len(many)) > 0.9
    few[:, ::2] = 0
    assert 0 <= trust(few.T @ few, len(few)) < 0.1
    assert trust(torch.zeros(4, 4), 9) == trust(torch.ones(1, 1), 9) == 1  # nothing to doubt


# --- what layers and inputs may be like ----------------------------------------------------------
@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["constant", "rank one", "dead", "uneven", "one token"])
def test_odd_inputs_and_weights_give_finite_codes(kind, seed, scale_dtype):
    generator = torch.Generator().manual_seed(seed)
    x = {
        "constant": torch.ones(50, 128),
        "rank one": torch.ones(50, 1) * torch.randn(1, 128, generator=generator),
        "dead": torch.randn(50, 128, generator=generator) * (torch.arange(128) % 3 == 0),
        "uneven": torch.randn(50, 128, generator=generator) * torch.logspace(-12, 6, 128),
        "one token": torch.randn(1, 128, generator=generator),
    }[kind]
    normal = torch.randn(16, 128, generator=generator)
    constant = torch.full((16, 128), 0.75)
    weights = [normal, normal * 1e-6, normal * 1e4, torch.zeros(16, 128), constant]
    solved = Awq(scale_dtype=scale_dtype).solve(weights, inputs_of(x), (2, 4, 8))
    for weight, result in zip(weights, solved, strict=True):
        for bits, one in result.items():
            plain = one.weight.dequantize()
            assert torch.isfinite(plain).all()
            rtn = Rtn(group_size=128).quantize(weight, bits).dequantize()
            assert loss(weight, plain, x) <= loss(weight, rtn, x) * (1 + 1e-5) + 1e-12


@pytest.mark.parametrize(("value", "note"), [(0, "all zero"), (1e25, "overflow float32")])
def test_uninformative_inputs_are_noted(value, note):
    weight = draw("independent", columns=128)[0]
    result = Awq().solve([weight], inputs_of(torch.full((9, 128), float(value))), [4])[0][4]
    assert note in result.note
    assert torch.equal(result.weight.codes, Rtn(group_size=128).quantize(weight, 4).codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": -1}, "group_size: -1 is negative; 0 is one group per row"),
        ({"grid": 0}, "grid: 0 is not at least 1"),
        (
            {"scale_dtype": "int8"},
            "'int8' is not valid; choose from float16, float16-only, bfloat16",
        ),
        ({"symmetric": True, "symmetric_no_clipping": True}, "choose either this or symmetric"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Awq(**options)


def test_half_precision_weights_are_taken():
    weight, x, _ = draw("correlated")
    half = weight.half()
    result = Awq().solve([half], inputs_of(x), [4])[0][4].weight
    same = Awq().solve([half.float()], inputs_of(x), [4])[0][4].weight
    assert torch.equal(result.codes, same.codes)


def foldable_case():
    """Three weights, and inputs some of which are large."""
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(12, 64, generator=generator) for _ in range(3)]
    inputs = LayerInputs(64)
    tokens = torch.randn(200, 64, generator=generator)
    tokens[:, ::9] *= 40
    inputs.update_(tokens)
    return weights, inputs


def total_error(weights, quantized, inputs):
    pairs = zip(weights, quantized, strict=True)
    return sum(output_error(w, q.dequantize(), inputs.gram) ** 2 for w, q in pairs)


@pytest.mark.parametrize("mapping", MappingType)
def test_foldable_scales_are_powers_of_two_that_all_readers_share(mapping):
    weights, inputs = foldable_case()
    awq = Awq(
        group_size=32,
        foldable=True,
        symmetric=mapping is MappingType.SYMMETRIC,
        symmetric_no_clipping=mapping is MappingType.SYMMETRIC_NO_CLIPPING,
    )
    inputs.foldable = True
    shared = [by_width[3].weight for by_width in awq.solve(weights, inputs, [3])]
    scale = shared[0].input_scale
    assert scale is not None
    assert all(torch.equal(weight.input_scale, scale) for weight in shared)
    assert torch.equal(scale.float().log2(), scale.float().log2().round())
    inputs.foldable = False
    unscaled = [by_width[3].weight for by_width in awq.solve(weights, inputs, [3])]
    assert all(weight.input_scale is None for weight in unscaled)
    rounded = [awq.quantize(weight, 3) for weight in weights]
    errors = [total_error(weights, some, inputs) for some in (shared, unscaled, rounded)]
    assert errors == sorted(errors)


def test_foldable_widths_are_solved_as_if_alone():
    weights, inputs = foldable_case()
    inputs.foldable = True
    awq = Awq(group_size=32, foldable=True)
    together = awq.solve(weights, inputs, [2, 4])
    for bits in (2, 4):
        alone = awq.solve(weights, inputs, [bits])
        for by_width, own in zip(together, alone, strict=True):
            assert torch.equal(by_width[bits].weight.codes, own[bits].weight.codes)
