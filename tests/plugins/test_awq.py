"""AWQ: ours against its properties and against autoawq's own searches, and the autoawq plugin."""

import itertools
from dataclasses import replace
from unittest import mock

import pytest
import torch
from legacy_solvers import autoawq as autoawq_class
from mmq_plugins.quantizers.auto_awq import AutoAwq
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.awq_errors import squared_errors_, trust
from mmq_plugins.quantizers.awq_levels import Rounding, choose_levels, multiples, rounding_errors
from mmq_plugins.quantizers.awq_search import (
    best_clips,
    candidate_scales,
    clipped_levels,
    relative_magnitude,
    storable,
)
from mmq_plugins.quantizers.rtn import Rtn
from torch import nn

from mmq.errors import InputError
from mmq.tensors.affine import MappingType, choose_qparams, grouped
from mmq.tensors.layer_inputs import LayerInputs, output_error
from mmq.testing import CalibratedQuantizerContract

WIDTHS = (2, 3, 4, 5, 6, 8)
OPTIONS = list(itertools.product((0, 32, 128), (False, True), (False, True)))  # groups, sym, duo


def quarter(number):
    """Three of the options: every group size, three of the four pairs of switches.

    Four numbers in a row have all options between them.
    """
    return [one for i, one in enumerate(OPTIONS) if (i + i // 4) % 4 == number % 4]


class TestAwqContract(CalibratedQuantizerContract):
    def make(self):
        return Awq()


class TestAwqSymmetricContract(CalibratedQuantizerContract):
    def make(self):
        return Awq(group_size=0, symmetric=True, clip=False)


class TestAutoAwqContract(CalibratedQuantizerContract):
    def make(self):
        autoawq_class()
        return AutoAwq()


def inputs_of(x, max_rows=0):
    sums = LayerInputs(x.shape[1], max_rows=max_rows)
    sums.update_(x)
    return sums


def draw(kind, tokens=1024, columns=256, rows=64, seed=0):
    """A weight, calibration inputs and held-out inputs of the same distribution."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    mixing, spread, shift = normal(columns // 4, columns), normal(columns), normal(columns)
    outliers = torch.ones(columns)
    outliers[torch.randperm(columns, generator=generator)[: columns // 50]] = 20

    def tokens_of():
        if kind == "independent":
            return normal(tokens, columns)
        if kind == "outliers":
            return normal(tokens, columns) * outliers * (spread / 2).exp()
        if kind == "rectified":
            return torch.relu(normal(tokens, columns) + shift - 0.5)
        common = normal(tokens, columns // 4) @ mixing / (columns / 4) ** 0.5
        return (common + 0.3 * normal(tokens, columns) + shift) * spread.exp()

    weight = normal(rows, columns) * 0.05 * (0.3 * normal(columns)).exp()
    return weight, tokens_of(), tokens_of()


KINDS = ("independent", "outliers", "rectified", "correlated")


def loss(weight, quantized, x):
    """Mean squared error of a linear layer's outputs, in float64."""
    return float((x.double() @ (quantized.double() - weight.double()).T).square().mean())


# --- against autoawq -----------------------------------------------------------------------------
def autoawq(bits, group_size, symmetric, duo_scaling=True):
    """autoawq's quantizer without its constructor, which loads a model and calibration data."""
    search = object.__new__(autoawq_class())
    search.w_bit, search.group_size, search.zero_point = bits, group_size, not symmetric
    search.duo_scaling, search.max_chunk_memory = duo_scaling, 2**30
    search.n_parallel_calib_samples = None
    return search


class Unaliased(nn.Linear):
    """A linear layer whose state dict is a copy: autoawq's search restores the weights from it."""

    def state_dict(self, *args, **kwargs):
        return {name: t.clone() for name, t in super().state_dict(*args, **kwargs).items()}


@torch.no_grad()
def searched_by_autoawq(weight, x, bits, group_size, symmetric, duo_scaling):
    """The plain weight that autoawq's searches for scales and clips end with, in float32."""
    rows, columns = weight.shape
    search = autoawq(bits, group_size or columns, symmetric, duo_scaling)
    layer = Unaliased(columns, rows, bias=False)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    relative = weight.abs().view(-1, search.group_size)
    relative = relative / (relative.amax(1, keepdim=True) + 1e-6)
    means = relative.view(rows, columns).mean(0), x.abs().mean(0)
    scale = search._compute_best_scale(x, *means, layer, [layer], layer(x))
    assert torch.equal(layer.weight, weight)
    clip = search._compute_best_clip(weight * scale, x / scale)
    clipped = torch.clamp((weight * scale).view(rows, -1, search.group_size), -clip, clip)
    return search.pseudo_quantize_tensor(clipped.view(rows, columns))[0] / scale


AUTOAWQS = {False: MappingType.ASYMMETRIC, True: MappingType.SYMMETRIC_NO_CLIPPING}


def quantized_as_autoawq(weight, bits, group_size, symmetric):
    """The weight, scales and zero points by `choose_qparams` with autoawq's ranges, in its dtype.

    Its ranges need not hold zero, and are at least 1e-5 wide.
    """
    w = grouped(weight, group_size or weight.shape[1])
    low, high = w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)
    scale, zero_point = choose_qparams(low, high, bits, AUTOAWQS[symmetric], min_span=1e-5)
    codes = ((w / scale).round_() + zero_point).clamp_(0, 2**bits - 1)
    plain = ((codes - zero_point) * scale).reshape(weight.shape)
    return plain, scale[..., 0], None if symmetric else zero_point[..., 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("symmetric", [False, True])
def test_qparams_and_rounding_are_bit_equal_to_autoawqs(dtype, symmetric):
    generator = torch.Generator().manual_seed(0)
    for bits, group_size, shift in itertools.product(range(2, 9), (0, 8, 32, 128), (0, 0.3, -100)):
        weight = (torch.randn(64, 256, generator=generator) * 0.1 + shift).to(dtype)
        weight[0], weight[1], weight[2], weight[3, ::5] = 0, 0.75, 1e-7, 0
        ours = quantized_as_autoawq(weight, bits, group_size, symmetric)
        theirs = autoawq(bits, group_size, symmetric).pseudo_quantize_tensor(weight)
        assert (ours[2] is None) == (theirs[2] is None) == symmetric
        for mine, other in zip(ours, theirs, strict=True):
            if mine is not None:
                assert mine.dtype == other.dtype == dtype
                assert torch.equal(mine, other)


@pytest.mark.parametrize("symmetric", [False, True])
def test_what_the_search_rounds_to_is_bit_equal_to_autoawqs_where_zero_is_in_range(symmetric):
    weight = draw("outliers")[0]
    for bits, size in itertools.product(range(2, 9), (32, 128, 256)):
        rounding = Rounding(bits, size, AUTOAWQS[symmetric])
        w = grouped(weight, size)
        levels = choose_levels(w.amin(-1, keepdim=True), w.amax(-1, keepdim=True), rounding)
        plain = (multiples(w, levels) * levels.scale).reshape(weight.shape)
        theirs = autoawq(bits, size, symmetric).pseudo_quantize_tensor(weight)
        assert torch.equal(plain, theirs[0])
        assert torch.equal(levels.scale[..., 0], theirs[1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [0, 32, 128])
def test_clips_are_autoawqs_but_for_ties(kind, group_size, symmetric):
    weight, x, _ = draw(kind, tokens=1500)
    size = group_size or weight.shape[1]
    taken = x[::2]  # autoawq takes every (tokens // 512)th
    number = KINDS.index(kind) + group_size // 32 + symmetric
    for bits in (2, 3, 4, 8)[number % 2 :: 2]:
        rounding = Rounding(bits, size, AUTOAWQS[symmetric])
        clips = best_clips(weight, taken.T @ taken, rounding)
        expected = autoawq(bits, size, symmetric)._compute_best_clip(weight, x)[..., 0]
        row, group = (clips != expected).nonzero(as_tuple=True)
        assert len(row) <= 0.002 * clips.numel()
        # where they differ neither is better: the errors are equal but for float32's rounding
        w, errors = grouped(weight, size)[row, group], []
        each = taken.double().view(len(taken), -1, size)[:, group]  # (tokens, ties, g)
        for chosen in (clips, expected):
            levels = clipped_levels(w, chosen[row, group][:, None], rounding)
            changed = torch.einsum("tng,ng->tn", each, rounding_errors(w, levels).double())
            errors.append(changed.square().sum(0))
        assert torch.allclose(*errors, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "group_size", "symmetric", "duo_scaling"),
    [(kind, *options) for k, kind in enumerate(KINDS) for options in quarter(k)],
)
def test_outputs_are_as_close_as_autoawqs_on_seen_and_unseen_inputs(
    kind, group_size, symmetric, duo_scaling
):
    weight, x, unseen = draw(kind)
    quantizer = Awq(
        group_size=group_size,
        symmetric_no_clipping=symmetric,
        duo_scaling=duo_scaling,
        scale_dtype="float32",  # autoawq's searches know nothing of how scales are stored
    )
    solved = quantizer.solve([weight], inputs_of(x), (2, 3, 4, 8))[0]
    for bits, found in solved.items():
        ours = found.weight.dequantize()
        theirs = searched_by_autoawq(weight, x, bits, group_size, symmetric, duo_scaling)
        assert loss(weight, ours, x) <= loss(weight, theirs, x) * (1 + 1e-6)
        assert loss(weight, ours, unseen) <= loss(weight, theirs, unseen) * 1.02


# --- properties ----------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_never_further_off_than_round_to_nearests(kind, scale_dtype):
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
        for bits, found in solved.items():
            plain = Rtn(group_size=group_size, symmetric=symmetric).quantize(weight, bits)
            ours = loss(weight, found.weight.dequantize(), x)
            assert ours <= loss(weight, plain.dequantize(), x) * (1 + 1e-6)
            assert found.note == ""


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
    found = Awq().solve([weight], inputs_of(x), [3])[0][3].weight
    assert found.scale.dtype == found.input_scale.dtype == torch.float16
    groups = weight.numel() // 128
    assert found.stored_bits == weight.numel() * 3 + groups * (16 + 3) + weight.shape[1] * 16


def test_errors_from_the_gram_matrix_are_those_of_the_outputs():
    weight, x, _ = draw("correlated", columns=600)
    for size in (1, 3, 64, 257, 600):
        d, gram = weight[:, :size], x[:, :size].double().T @ x[:, :size].double()
        expected = (x[:, :size].double() @ d.double().T).square().sum(0)
        found = squared_errors_(d.clone(), gram.float())  # it is used up
        assert torch.allclose(found.double(), expected, rtol=1e-4)


def test_correlations_are_trusted_where_inputs_are_many_for_them():
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
    for weight, found in zip(weights, solved, strict=True):
        for bits, one in found.items():
            plain = one.weight.dequantize()
            assert torch.isfinite(plain).all()
            rtn = Rtn(group_size=128).quantize(weight, bits).dequantize()
            assert loss(weight, plain, x) <= loss(weight, rtn, x) * (1 + 1e-5) + 1e-12


@pytest.mark.parametrize(("value", "note"), [(0, "all zero"), (1e25, "overflow float32")])
def test_inputs_that_tell_nothing_are_noted(value, note):
    weight = draw("independent", columns=128)[0]
    found = Awq().solve([weight], inputs_of(torch.full((9, 128), float(value))), [4])[0][4]
    assert note in found.note
    assert torch.equal(found.weight.codes, Rtn(group_size=128).quantize(weight, 4).codes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group_size": -1}, "group_size: -1 is negative; 0 is one group per row"),
        ({"grid": 0}, "grid: 0 is not at least 1"),
        ({"scale_dtype": "int8"}, "'int8' is not valid; choose from float16, bfloat16, float32"),
        ({"symmetric": True, "symmetric_no_clipping": True}, "choose either this or symmetric"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Awq(**options)


def test_half_precision_weights_are_taken():
    weight, x, _ = draw("correlated")
    half = weight.half()
    found = Awq().solve([half], inputs_of(x), [4])[0][4].weight
    same = Awq().solve([half.float()], inputs_of(x), [4])[0][4].weight
    assert torch.equal(found.codes, same.codes)


# --- the autoawq plugin --------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(("group_size", "symmetric", "duo_scaling"), OPTIONS)
def test_codes_are_the_weights_that_autoawq_rounds(group_size, symmetric, duo_scaling):
    searches = autoawq_class()
    weight, x, _ = draw("outliers", tokens=700)
    quantizer = AutoAwq(
        group_size=group_size, symmetric_no_clipping=symmetric, duo_scaling=duo_scaling
    )
    rounded, original = [], searches.pseudo_quantize_tensor

    def recorded(self, w):
        result = original(self, w)
        rounded.append(result[0])
        return result

    number = OPTIONS.index((group_size, symmetric, duo_scaling))
    for bits in (2 + number % 7, 2 + (number + 3) % 7):
        with mock.patch.object(searches, "pseudo_quantize_tensor", recorded):
            solved = quantizer.solve([weight], inputs_of(x, max_rows=512), [bits])[0][bits]
        scaled = replace(solved.weight, input_scale=None).dequantize()
        assert rounded[-1].dtype == solved.weight.scale.dtype == torch.float16
        assert torch.equal(scaled.half(), rounded[-1])
        assert "copies of the weights" in solved.note


def test_autoawq_finds_better_than_round_to_nearest():
    autoawq_class()
    weight, x, _ = draw("outliers")
    before = weight.clone()
    for bits, found in AutoAwq().solve([weight], inputs_of(x, max_rows=512), [2, 3, 4])[0].items():
        plain = Rtn(group_size=128).quantize(weight, bits).dequantize()
        assert loss(weight, found.weight.dequantize(), x) < 0.9 * loss(weight, plain, x)
    assert torch.equal(weight, before)


def test_autoawq_refuses_layers_that_its_clip_search_cannot_take():
    AutoAwq().check("a.layer", (192, 256))
    AutoAwq(clip=False).check("a.layer", (100, 256))
    with pytest.raises(InputError, match="a multiple of 64 outputs, but a.layer has 100"):
        AutoAwq().check("a.layer", (100, 256))
    with pytest.raises(InputError, match="does not divide the 100 inputs"):
        AutoAwq().check("a.layer", (64, 100))


def test_autoawq_refuses_a_negative_group_size():
    with pytest.raises(ValueError, match="group_size: -1 is negative"):
        AutoAwq(group_size=-1)


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
