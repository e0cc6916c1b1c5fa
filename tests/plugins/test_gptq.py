"""mmq's GPTQ against auto_gptq's solver, and properties of its own."""

from functools import partial
from unittest import mock

import pytest
import torch
from legacy_solvers import auto_gptq
from mmq_plugins.quantizers import gptq
from mmq_plugins.quantizers.gptq import Gptq, Ranges, solve
from mmq_plugins.quantizers.gptq_factor import factorize
from torch import nn

from mmq.tensors.affine import MappingType
from mmq.tensors.layer_inputs import LayerInputs, output_error
from mmq.testing import CalibratedQuantizerContract

WIDTHS = (2, 3, 4, 8)
DOUBLE, SINGLE = torch.float64, torch.float32
SIZES = [  # outputs, inputs, tokens, inputs that are always zero
    (96, 128, 512, 0),
    (96, 256, 1024, 9),
    (96, 256, 100, 0),  # fewer tokens than inputs: X^T X is singular
    (96, 96, 40, 5),
]
GROUPS = [(0, False), (32, False), (32, True)]  # size, static


def make(rows, columns, tokens, dead=0, seed=1):
    """A weight and correlated inputs, some of them large, some always zero."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns // 4, columns, generator=generator)
    x = torch.randn(tokens, columns // 4, generator=generator) @ mixing
    x += torch.randn(tokens, columns, generator=generator)
    x[:, ::37] *= 12
    x += torch.randn(columns, generator=generator) / 2
    x[:, torch.randperm(columns, generator=generator)[:dead]] = 0
    return torch.randn(rows, columns, generator=generator) * 0.05, x


def inputs_of(x):
    sums = LayerInputs(x.shape[1])
    sums.update_(x)
    return sums


def theirs(weight, x, bits, ranges, act_order):
    """The weight that auto_gptq's solver returns, computed in float64.

    It takes the ranges of groups smaller than its block from weights that lack the updates of
    that block; with blocks of a group's size they are fresh, as ours are.
    """
    original = auto_gptq()
    layer = nn.Linear(*weight.T.shape, bias=False, dtype=DOUBLE)
    layer.weight.data = weight.double()
    with (
        mock.patch.object(torch.cuda, "synchronize"),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        solver = original(layer)
        solver.quantizer.configure(
            bits, perchannel=True, sym=ranges.mapping.is_symmetric, mse=False
        )
        solver.H = 2 * x.double().T @ x.double()
        solver.nsamples = 1
        solver.fasterquant(
            blocksize=min(ranges.group_size or 128, 128),
            group_size=ranges.group_size or -1,
            actorder=act_order,
            static_groups=ranges.static_groups,
        )
    return layer.weight.data


def tied(found, differs, alive, order, ranges):
    """Rows that first differ where -max|w| is rounded, which is exactly between two codes.

    A symmetric range ends at max|w|, a whole number of steps and a half: which of the codes 0 and
    1 stands for -max|w| is up to the last bit. It matters only to a weight that nothing has moved
    since its range was taken: the first live one of a group, or of the row.
    """
    if not ranges.mapping.is_symmetric:
        return torch.zeros(len(differs), dtype=torch.bool)
    size = ranges.group_size if ranges.group_size and not ranges.static_groups else len(order)
    group = torch.arange(len(order)) // size
    live = alive[order]
    opening = torch.tensor(
        [bool(live[i]) and not live[:i][group[:i] == group[i]].any() for i in range(len(order))]
    )
    first = differs[:, order].int().argmax(1)
    code = found.codes[:, order].gather(1, first[:, None])[:, 0]
    return differs.any(1) & opening[first] & (code <= 1)


def compare(size, bits, ranges, act_order, dtype):
    """Output error of ours over theirs, and the number of rows that differ, of all, less ties."""
    weight, x = make(*size)
    gram = x.to(dtype).T @ x.to(dtype)
    [result] = solve([weight], factorize(gram, 0.01, act_order), (bits,), ranges, dtype)
    expected = theirs(weight, x, bits, ranges, act_order)
    ours = result[bits].dequantize().double()
    alive = x.abs().sum(0) > 0
    differs = ((ours - expected).abs() > 1e-4 * weight.abs().max()) & alive
    squares = (x.double() ** 2).sum(0)
    order = torch.argsort(squares, descending=True) if act_order else torch.arange(x.shape[1])
    kept = ~tied(result[bits], differs, alive, order, ranges)
    assert kept.double().mean() > 0.9
    errors = [(x.double() @ (weight.double() - q)[kept].T).norm() for q in (ours, expected)]
    return float(errors[0] / errors[1]), int(differs[kept].any(1).sum()), int(kept.sum())


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("group_size", "static"), GROUPS)
class TestAgainstAutoGptq:
    def test_in_float64_the_output_error_is_the_same(
        self, group_size, static, symmetric, act_order
    ):
        ranges = Ranges(group_size, MappingType.of(symmetric), static, DOUBLE)
        for size in SIZES:
            for bits in WIDTHS:
                ratio, differing, rows = compare(size, bits, ranges, act_order, DOUBLE)
                assert abs(ratio - 1) <= 0.0005, (size, bits, ratio)
                assert differing <= 0.005 * rows, (size, bits)

    def test_in_float32_few_rows_differ_from_float64(
        self, group_size, static, symmetric, act_order
    ):
        ranges = Ranges(group_size, MappingType.of(symmetric), static, SINGLE)
        differing = rows = 0
        for size in SIZES:
            for bits in WIDTHS:
                ratio, *counts = compare(size, bits, ranges, act_order, SINGLE)
                assert 0.995 <= ratio <= 1.007, (size, bits, ratio)
                differing, rows = differing + counts[0], rows + counts[1]
        assert differing <= 0.02 * rows


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_larger_layer_is_the_same_in_float64(symmetric):
    for group_size, static in ((0, True), (128, False)):
        ranges = Ranges(group_size, MappingType.of(symmetric), static, DOUBLE)
        ratio, *_ = compare((96, 768, 2048, 20), 4, ranges, True, DOUBLE)
        assert abs(ratio - 1) <= 0.0005


class TestGptqContract(CalibratedQuantizerContract):
    differing_codes = 0.005

    def make(self):
        return Gptq()


class TestGptqGroupsContract(CalibratedQuantizerContract):
    differing_codes = 0.005

    def make(self):
        return Gptq(group_size=32, symmetric=True)


SETTINGS = [
    Gptq(),
    Gptq(act_order=False, symmetric=True),
    Gptq(group_size=32),
    Gptq(group_size=8, static_groups=False),
    Gptq(group_size=32, static_groups=False, act_order=False, scale_dtype="float32"),
]


@pytest.mark.parametrize("quantizer", SETTINGS)
def test_widths_and_layers_together_equal_each_alone(quantizer, monkeypatch):
    # in float64: matrix products of other shapes may differ in the last bit, by processor
    monkeypatch.setattr(gptq, "solve", partial(gptq.solve, dtype=DOUBLE))
    first, x = make(60, 128, 300, dead=3)
    second = make(20, 128, 1, seed=5)[0].half()
    sums = inputs_of(x)
    together = quantizer.solve([first, second], sums, WIDTHS)
    monkeypatch.setattr(gptq, "TILE_BYTES", 128 * 4 * 17)  # 17 rows a tile
    for number, weight in enumerate((first, second)):
        for bits in WIDTHS:
            [alone] = quantizer.solve([weight], sums, [bits])
            ours, other = together[number][bits].weight, alone[bits].weight
            assert torch.equal(ours.codes, other.codes)
            assert torch.equal(ours.scale, other.scale)


@pytest.mark.parametrize("quantizer", SETTINGS)
@pytest.mark.parametrize("bits", WIDTHS)
def test_outputs_are_closer_than_by_rounding_to_nearest(quantizer, bits):
    weight, x = make(64, 128, 600)
    gram = inputs_of(x).gram
    solved = quantizer.solve([weight], inputs_of(x), [bits])[0][bits]
    nearest = quantizer.quantize(weight, bits).dequantize()
    assert solved.note == ""
    assert output_error(weight, solved.weight.dequantize(), gram) < 0.95 * output_error(
        weight, nearest, gram
    )


@pytest.mark.parametrize("factor", [2.0**-40, 3e-9, 1e9])
def test_the_scale_of_the_gram_matrix_does_not_matter(factor):
    weight, x = make(32, 128, 300, dead=4)
    gram = x.double().T @ x.double()
    plain, scaled = (
        solve([weight], factorize(g, act_order=True), (3,), Ranges(32), DOUBLE)[0][3]
        for g in (gram, gram * factor)
    )
    assert torch.equal(plain.codes, scaled.codes)


def test_noncontiguous_groups_have_a_group_index():
    weight, x = make(16, 128, 300)
    solved = Gptq(group_size=32, static_groups=False).solve([weight], inputs_of(x), [4])
    quantized = solved[0][4].weight
    order = torch.argsort(inputs_of(x).gram.diagonal(), descending=True)
    assert quantized.group_index is not None
    assert quantized.group_index[order].tolist() == [i // 32 for i in range(128)]
    for static in (Gptq(group_size=32), Gptq()):
        assert static.solve([weight], inputs_of(x), [4])[0][4].weight.group_index is None


def test_weights_of_dead_inputs_are_rounded_to_nearest():
    weight, x = make(16, 128, 300)
    x[:, 40:] = 0
    solved = Gptq(scale_dtype="float32").solve([weight], inputs_of(x), [4])[0][4].weight
    step = solved.scale.float()
    assert ((solved.dequantize() - weight)[:, 40:].abs() <= step * 0.5001).all()


NORMAL = torch.randn(50, 64, generator=torch.Generator().manual_seed(6))
ODD_INPUTS = {
    "nothing": torch.zeros(0, 64),
    "zero": torch.zeros(9, 64),
    "constant": torch.ones(9, 64),
    "rank one": NORMAL[:, :1] * torch.arange(64),
    "some NaN": torch.where(NORMAL > 2.5, torch.nan, NORMAL),
    "all NaN": torch.full((9, 64), torch.nan),
    "tiny": NORMAL * 1e-18,
    "huge": NORMAL * 1e17,
    "overflowing": NORMAL * 1e20,
}
ODD_WEIGHTS = {
    "zero": torch.zeros(4, 64),
    "constant": torch.full((4, 64), -0.3),
    "zero rows": NORMAL[:4] * torch.tensor([1.0, 0, 1, 0])[:, None],
    "an outlier": NORMAL[:4] + 1e12 * torch.eye(4, 64),
    "tiny": NORMAL[:4] * 1e-30,
    "positive": NORMAL[:4].abs() + 0.1,
}


@pytest.mark.parametrize("damping", [0.01, 0.0])
@pytest.mark.parametrize("quantizer", SETTINGS)
@pytest.mark.parametrize("inputs", ODD_INPUTS)
def test_odd_inputs_and_weights_give_finite_codes(quantizer, inputs, damping):
    quantizer = type(quantizer)(**(vars(quantizer) | {"damping": damping}))
    sums = inputs_of(ODD_INPUTS[inputs])
    for name, weight in ODD_WEIGHTS.items():
        for solved in quantizer.solve([weight], sums, (2, 8))[0].values():
            near = solved.weight.dequantize()
            assert torch.isfinite(near).all(), name
            if inputs in ("nothing", "zero", "all NaN", "overflowing"):
                # half a step, a whole one at the end of a symmetric range; scales are rounded
                steps = 1.1 if quantizer.symmetric else 0.6
                assert "rounded to nearest" in solved.note
                assert (near - weight).abs().max() <= steps * solved.weight.scale.float().max()


def test_damping_grows_if_necessary_and_is_noted():
    weight, x = make(8, 64, 20)
    solved = Gptq(damping=0.0).solve([weight], inputs_of(x), [4])
    assert solved[0][4].note == "damping raised from 0 to 1e-06"
    broken = torch.tensor([[1.0, 3.0], [3.0, 1.0]])  # not positive: no inputs give it
    assert factorize(broken, damping=0.01).damping == pytest.approx(10)
    assert factorize(broken * torch.tensor([[1, torch.nan], [torch.nan, 1]])).damping is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": -1}, "group_size: -1 is negative"),
        ({"damping": -0.1}, "damping: -0.1 is not between 0 and 1"),
        ({"damping": float("nan")}, "damping: nan is not between"),
        ({"scale_dtype": "int8"}, "'int8' is not valid; choose from float16"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Gptq(**options)
