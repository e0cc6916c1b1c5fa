"""The plugin that drives auto_gptq's own solver."""

import itertools
from unittest import mock

import pytest
import torch
from legacy_solvers import auto_gptq
from mmq_plugins.quantizers.auto_gptq import AutoGptq
from torch import nn

from mmq.tensors.layer_inputs import LayerInputs
from mmq.testing import CalibratedQuantizerContract

NO_GPU = "solved without a GPU, torch.cuda.synchronize replaced by nothing"


def make(rows=48, columns=96, tokens=400):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(tokens, columns, generator=generator)
    x[:, ::7] += 3 * x[:, :1]
    return torch.randn(rows, columns, generator=generator) * 0.05, x


def inputs_of(x):
    sums = LayerInputs(x.shape[1])
    sums.update_(x)
    return sums


def left_by_auto_gptq(quantizer, weight, x, bits):
    """The layer's weight after auto_gptq quantized it as in its quickstart."""
    layer = nn.Linear(*weight.T.shape, bias=False)
    layer.weight.data = weight.clone()
    solver = auto_gptq()(layer)
    solver.quantizer.configure(bits, perchannel=True, sym=quantizer.symmetric, mse=False)
    solver.H = inputs_of(x).gram * (2 / len(x))
    with mock.patch.object(torch.cuda, "synchronize"):
        solver.nsamples = len(x)
        solver.fasterquant(
            percdamp=quantizer.damping,
            group_size=quantizer.group_size or -1,
            actorder=quantizer.act_order,
            static_groups=quantizer.static_groups,
        )
    return layer.weight.data


class TestAutoGptqContract(CalibratedQuantizerContract):
    def make(self):
        auto_gptq()
        return AutoGptq(group_size=64)


@pytest.mark.parametrize(
    ("group_size", "symmetric", "act_order", "static"),
    itertools.product((0, 32), (False, True), (False, True), (False, True)),
)
def test_codes_represent_the_weight_that_auto_gptq_returns(
    group_size, symmetric, act_order, static
):
    auto_gptq()
    weight, x = make()
    x[:, 5] = 0
    quantizer = AutoGptq(
        group_size=group_size, symmetric=symmetric, act_order=act_order, static_groups=static
    )
    for bits, solved in quantizer.solve([weight], inputs_of(x), (2, 3, 4, 8))[0].items():
        expected = left_by_auto_gptq(quantizer, weight, x, bits)
        result = solved.weight.dequantize()
        assert (result - expected).norm() <= 1e-6 * expected.norm()
        scattered = group_size > 0 and act_order and not static
        assert (solved.weight.group_index is not None) == scattered


def test_notes_report_special_cases():
    auto_gptq()
    weight, x = make()
    synchronize = torch.cuda.synchronize
    assert AutoGptq().solve([weight], inputs_of(x), [4])[0][4].note == NO_GPU
    assert torch.cuda.synchronize is synchronize
    x[:, 3:5] = 0
    dead = AutoGptq().solve([weight.bfloat16()], inputs_of(x), [4])[0][4]
    assert dead.note == NO_GPU  # the engine's note tells of weights that became zero
    assert not dead.weight.dequantize()[:, 3:5].any()


@pytest.mark.parametrize(
    ("damping", "tokens", "factor", "note"),
    [
        (0.01, 0, 1.0, "the calibration inputs are all zero: rounded to nearest"),
        (0.0, 5, 1.0, "found no finite solution at damping 0: rounded to nearest"),
        (0.01, 400, 1e19, "found no finite solution at damping 0.01: rounded to nearest"),
    ],
)
def test_unsolvable_weights_are_rounded_to_nearest(damping, tokens, factor, note):
    auto_gptq()
    weight, x = make(tokens=tokens)
    x *= factor
    quantizer = AutoGptq(damping=damping)
    solved = quantizer.solve([weight], inputs_of(x), [3])[0][3]
    assert note in solved.note
    assert torch.equal(solved.weight.codes, quantizer.quantize(weight, 3).codes)
    assert torch.cuda.synchronize.__module__ == "torch.cuda"


def test_a_symmetric_group_without_negative_weights_loses_its_upper_half():
    auto_gptq()  # the one place where its symmetric is not MappingType.SYMMETRIC
    weight, x = make()
    (solved,) = AutoGptq(symmetric=True).solve([weight.abs()], inputs_of(x), [8])
    halves = weight.abs().amax(1) / 2
    assert (solved[8].weight.dequantize().amax(1) <= halves * 1.01).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": -1}, "group_size: -1 is negative"),
        ({"damping": 2.0}, "damping: 2.0 is not between 0 and 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        AutoGptq(**options)


def test_an_expert_that_is_stored_transposed_gets_the_codes_of_its_matrix():
    auto_gptq()
    weight, x = make()
    stored = weight.T.contiguous()[None]  # (experts, in, out), as Llama 4 stores them
    expert, plain = (
        AutoGptq(group_size=32).solve([w], inputs_of(x), [3])[0][3] for w in (stored[0].T, weight)
    )
    assert torch.equal(expert.weight.codes, plain.weight.codes)
