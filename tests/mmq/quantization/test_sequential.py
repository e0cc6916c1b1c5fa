"""Layers that cannot be quantized as the others: unreached, with weights or inputs not finite."""

from dataclasses import replace

import pytest
import torch
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn
from torch import nn

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.data.calibration import Calibration
from mmq.errors import InputError
from mmq.models.components import find_components
from mmq.models.loading import load_model
from mmq.prepare import prepare
from mmq.quantization.blocks import Block
from mmq.quantization.modules import quantize_module
from mmq.quantization.sequential import UNREACHED, check_finite, quantize_data_free
from mmq.tensors.matrices import Matrix

ORDERS = ("full_precision", "sequential")
WIDTHS = [2, 4]


class Gated(nn.Module):
    """A block with a linear that is never called, and one for inputs below 0 on average."""

    def __init__(self):
        super().__init__()
        self.near, self.far = nn.Linear(32, 48), nn.Linear(48, 32)
        self.spare, self.rare = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x):
        if x.mean() < 0:
            x = self.rare(x)
        return x + self.far(torch.relu(self.near(x)))


class Blocks(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Blocks(Gated(), Gated())


def forwards_of(module, inputs):
    return [lambda x=x: module(x) for x in inputs]


@pytest.mark.parametrize("path", ["", "blocks"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("quantizer", [Gptq(), Awq(group_size=0)], ids=["gptq", "awq"])
def test_a_layer_that_is_never_called_is_rounded_to_nearest(module, quantizer, order, path):
    quantizer = replace(quantizer, calibration_inputs=order)
    inputs = torch.randn(3, 20, 32) + 0.5
    solved = quantize_module(module, forwards_of(module, inputs), quantizer, WIDTHS, path, True)
    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear)}
    for bits in WIDTHS:
        assert solved[bits].keys() == layers.keys()
        for name, layer in solved[bits].items():
            plain = Rtn().quantize(layers[name].weight, bits)
            unreached = name.endswith(("spare", "rare"))
            assert (layer.note == UNREACHED) == (layer.output_error is None) == unreached, name
            if unreached:
                assert torch.equal(layer.weight.codes, plain.codes)
                assert torch.equal(layer.weight.dequantize(), plain.dequantize())
                assert layer.weight.dequantize().any(1).all()  # no row became zero
                assert 0 < layer.relative_error < 1


@pytest.mark.parametrize("order", ORDERS)
def test_a_layer_that_few_inputs_reach_is_solved_from_these(module, order):
    inputs = torch.randn(4, 20, 32) + torch.tensor([1.0, -1, 1, 1])[:, None, None]
    quantizer = Gptq(calibration_inputs=order)
    first = quantize_module(
        module, forwards_of(module, inputs), quantizer, WIDTHS, "blocks", True
    )[4]["blocks.0.rare"]
    alone = quantize_module(
        module, forwards_of(module, inputs[1:2]), quantizer, WIDTHS, "blocks", True
    )[4]["blocks.0.rare"]
    assert first.note == alone.note == ""
    assert torch.equal(first.weight.codes, alone.weight.codes)


@pytest.mark.parametrize("order", ORDERS)
def test_a_block_without_linears_is_passed_through(order):
    torch.manual_seed(0)
    module = Blocks(Gated(), nn.Tanh(), Gated())
    inputs = torch.randn(3, 20, 32) + 0.5
    quantizer = Gptq(calibration_inputs=order)
    result = quantize_module(module, forwards_of(module, inputs), quantizer, [4], "blocks", True)
    assert {name.split(".")[1] for name in result[4]} == {"0", "2"}
    assert result[4]["blocks.2.near"].output_error < 0.2


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_inputs_that_are_not_finite_are_noted_and_do_not_count_as_unreached(module, order, share):
    inputs = torch.randn(1, 20, 32) + 0.5
    inputs[:, : int(20 * share), 3] = torch.nan
    quantizer = Gptq(calibration_inputs=order)
    run = forwards_of(module, inputs)
    layer = quantize_module(module, run, quantizer, [4], "blocks", True)[4]["blocks.0.near"]
    plain = Rtn().quantize(module.blocks[0].near.weight, 4)
    if share == 1:
        assert layer.note == "all of its 20 inputs were not finite: rounded to nearest"
        assert torch.equal(layer.weight.codes, plain.codes)
    else:
        assert layer.note == "4 inputs were not finite and left out"
        assert not torch.equal(layer.weight.codes, plain.codes)


def never(*arguments):
    raise AssertionError("calibration started")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("quantizer", [Rtn(), Gptq(), Awq(group_size=16)])
@pytest.mark.parametrize("path", ["", "blocks"])
def test_a_module_with_weights_that_are_not_finite_names_the_layer(module, quantizer, value, path):
    with torch.no_grad():
        module.blocks[1].far.weight[2, 3] = value
    with pytest.raises(
        InputError, match=r"blocks\.1\.far: 1 of its 1536 weights is not a finite number"
    ):
        quantize_module(module, [never], quantizer, WIDTHS, path, True)


def test_large_finite_weights_are_accepted():
    layer = nn.Linear(4, 4)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        nn.init.constant_(layer.to(dtype).weight, torch.finfo(dtype).max)
        check_finite({"large": Matrix(layer)})
    broken = nn.Linear(4, 4).half().apply(overflow_)
    with pytest.raises(InputError, match="broken: 16 of its 16 weights are not finite numbers"):
        check_finite({"large": Matrix(layer), "broken": Matrix(broken)})


def overflow_(layer):
    nn.init.constant_(layer.weight, torch.inf)


def prepared_for(quantizer):
    options = EvalOptions(quantizer=quantizer, limit="8", calibration_samples=8)
    return prepare(
        options,
        {"num-beams": "1"},
        lambda parts: [BitAllocation.uniform(parts, b) for b in WIDTHS],
    )


@pytest.mark.parametrize("quantizer", ["rtn", "uniform", "gptq", "awq"])
def test_a_model_with_weights_that_are_not_finite_names_component_and_layer(
    quantizer, tmp_path, monkeypatch
):
    model = load_model("embedded-blip2")
    layer = model.components["llm"].layers[9]
    layer.module.weight[0, 0] = torch.nan
    monkeypatch.setattr(Calibration, "forwards", never)
    artifacts = prepared_for(quantizer).artifacts(Store(tmp_path), quiet=True)
    for name in ("vit", "llm"):  # before any component is worked on, not when its turn comes
        with pytest.raises(InputError, match=rf"llm: {layer.name}: 1 of its \d+ weights is not a"):
            artifacts.fill(model, name, WIDTHS)
    assert not artifacts.store.entries()


@pytest.mark.parametrize("order", ORDERS)
def test_unreached_layers_of_a_model_are_reported_and_unchanged(order, tmp_path):
    model = load_model("embedded-blip2")
    torch.manual_seed(0)
    blocks = model.module.get_submodule(model.components["qformer"].paths[0])
    blocks[1].spare = nn.Linear(128, 64).requires_grad_(False)
    model.components = find_components(model.module, model.family)
    prepared = prepared_for("gptq")
    prepared.quantizer = Gptq(calibration_inputs=order)
    artifacts = prepared.artifacts(Store(tmp_path), quiet=True)
    try:
        reports = artifacts.write_(model, BitAllocation.parse("qformer=4"))
        unreached = [r for r in reports if r.note == UNREACHED]
        assert [r.name.rpartition(".")[2] for r in unreached] == ["spare"]
        assert unreached[0].output_error is None
        written = blocks[1].spare.weight.clone()
    finally:
        model.restore_()
    plain = Rtn().quantize(blocks[1].spare.weight, 4).dequantize()
    assert torch.equal(written, plain)
    assert plain.any()


@pytest.mark.parametrize("quantizer", [Rtn(), Gptq()], ids=["rtn", "gptq"])
def test_a_layer_whose_scales_do_not_fit_their_dtype_is_noted(quantizer):
    linear = nn.Linear(32, 8, bias=False)
    forwards = [lambda: linear(torch.randn(100, 32))]
    (fits,) = quantize_module(linear, forwards, quantizer, [4], quiet=True)[4].values()
    with torch.no_grad():
        linear.weight *= 1e-6
    (wide,) = quantize_module(linear, forwards, quantizer, [4], quiet=True)[4].values()
    assert fits.note == ""
    assert wide.note == "some scales do not fit float16: all are stored in float32"
    assert wide.weight.stored_bits == fits.weight.stored_bits + 8 * 16


@pytest.mark.parametrize(
    ("scale_dtype", "stored"),
    [("float16", torch.float32), ("float16-only", torch.float16)],
)
def test_float16_only_stores_scales_of_small_weights_in_float16(scale_dtype, stored):
    layer = nn.Linear(64, 8, bias=False)
    with torch.no_grad():
        layer.weight[0] *= 1e-5
    block = Block(layer, {"a": layer})
    quantized = quantize_data_free(block, Rtn(scale_dtype=scale_dtype), 4)["a"]
    assert quantized.weight.scale.dtype == stored
    assert ("float32" in quantized.note) == (stored == torch.float32)
