"""The autoawq plugin, and mmq's AWQ against autoawq's own searches."""

import itertools
from dataclasses import replace
from unittest import mock

import pytest
import torch
from awq_cases import KINDS, OPTIONS, draw, inputs_of, loss, quarter
from legacy_solvers import autoawq as autoawq_class
from mmq_plugins.quantizers.auto_awq import AutoAwq
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.awq_levels import Rounding, choose_levels, multiples, rounding_errors
from mmq_plugins.quantizers.awq_search import (
    best_clips,
    clipped_levels,
)
from mmq_plugins.quantizers.rtn import Rtn
from torch import nn

from mmq.errors import InputError
from mmq.tensors.affine import MappingType, choose_qparams, grouped
from mmq.tensors.layer_inputs import LayerInputs
from mmq.testing import CalibratedQuantizerContract


class TestAutoAwqContract(CalibratedQuantizerContract):
    def make(self):
        autoawq_class()
        return AutoAwq()


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
def test_the_searchs_rounded_weights_equal_autoawqs_where_zero_is_in_range(symmetric):
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
def test_outputs_are_as_close_as_autoawqs_on_calibration_and_held_out_inputs(
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
    for bits, result in solved.items():
        ours = result.weight.dequantize()
        theirs = searched_by_autoawq(weight, x, bits, group_size, symmetric, duo_scaling)
        assert loss(weight, ours, x) <= loss(weight, theirs, x) * (1 + 1e-6)
        assert loss(weight, ours, unseen) <= loss(weight, theirs, unseen) * 1.02


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
    for bits, result in (
        AutoAwq().solve([weight], inputs_of(x, max_rows=512), [2, 3, 4])[0].items()
    ):
        plain = Rtn(group_size=128).quantize(weight, bits).dequantize()
        assert loss(weight, result.weight.dequantize(), x) < 0.9 * loss(weight, plain, x)
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


def test_an_expert_that_is_stored_transposed_gets_the_codes_of_its_matrix():
    autoawq_class()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 64, generator=generator)
    stored = weight.T.contiguous()[None]  # (experts, in, out), as Llama 4 stores them
    inputs = LayerInputs(64, max_rows=512)
    inputs.update_(torch.randn(100, 64, generator=generator))
    expert, plain = (
        AutoAwq(group_size=32).solve([w], inputs, [3])[0][3].weight for w in (stored[0].T, weight)
    )
    assert torch.equal(expert.codes, plain.codes)
    assert torch.equal(expert.input_scale, plain.input_scale)
