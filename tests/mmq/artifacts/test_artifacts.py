"""Blocks are quantized once, for all widths, and a killed process repeats at most one."""

import pytest
import torch
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn
from safetensors import safe_open
from torch import nn

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.errors import InputError
from mmq.prepare import prepare
from mmq.quantization.modules import quantize_module, write_

WIDTHS = (3, 8)


def prepared_for(order):
    options = EvalOptions(quantizer="gptq", limit="8", calibration_samples=8)
    return prepare(
        options,
        {"calibration-inputs": order, "num-beams": "1"},
        lambda parts: [BitAllocation.uniform(parts, bits) for bits in WIDTHS],
    )


@pytest.fixture(scope="module")
def model():
    return prepared_for("full_precision").load()


def stored(store):
    return {entry.path.name for entry in store.entries()}


def test_requesting_one_width_computes_all_widths_of_the_study(model, tmp_path):
    store = Store(tmp_path)
    artifacts = prepared_for("full_precision").artifacts(store, quiet=True)
    artifacts.write_(model, BitAllocation.parse("qformer=3"))
    model.restore_()
    assert {(e.key["component"], e.key["bits"]) for e in store.entries()} == {
        ("qformer", 3),
        ("qformer", 8),
    }
    assert not any(entry.verify() for entry in store.entries())


def test_filling_the_store_again_computes_nothing(model, tmp_path, monkeypatch):
    artifacts = prepared_for("full_precision").artifacts(Store(tmp_path), quiet=True)
    artifacts.fill(model, "qformer", WIDTHS)

    def refuse(*arguments):
        raise AssertionError("solved again")

    monkeypatch.setattr(Gptq, "solve", refuse)
    artifacts.fill(model, "qformer", WIDTHS)


def content(entry):
    """The hash over key, tensors and errors; the order of a file's header is not fixed."""
    with safe_open(entry.path, framework="pt") as file:
        return file.metadata()["sha256"]


@pytest.mark.parametrize("order", ["full_precision", "sequential"])
def test_interrupted_work_resumes_with_the_same_result(model, tmp_path, monkeypatch, order):
    prepared = prepared_for(order)
    whole = prepared.artifacts(Store(tmp_path / "whole"), quiet=True)
    whole.fill(model, "qformer", WIDTHS)
    part = prepared.artifacts(Store(tmp_path / "part"), quiet=True)
    put, blocks = Store.put, []

    def die_at_the_third(self, key, layers, seconds=None):
        if key.block == 2:
            raise KeyboardInterrupt
        put(self, key, layers)

    monkeypatch.setattr(Store, "put", die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        part.fill(model, "qformer", WIDTHS)

    def count(self, key, layers, seconds=None):
        blocks.append(key.block)
        put(self, key, layers)

    monkeypatch.setattr(Store, "put", count)
    part.fill(model, "qformer", WIDTHS)
    assert set(blocks) == {2, 3}
    assert stored(part.store) == stored(whole.store)
    for one, other in zip(whole.store.entries(), part.store.entries(), strict=True):
        assert content(one) == content(other)


def test_in_sequential_order_the_upstream_bits_are_part_of_the_key(model, tmp_path):
    store = Store(tmp_path)
    artifacts = prepared_for("sequential").artifacts(store, quiet=True)
    for text in ("qformer=3", "vit=3 qformer=3", "vit=8 qformer=3"):
        artifacts.write_(model, BitAllocation.parse(text))
        model.restore_()
    keys = {e.key["calibration"] for e in store.entries() if e.key["component"] == "qformer"}
    assert len(keys) == 3


def test_any_module_is_quantized_whole_or_by_blocks():
    torch.manual_seed(0)
    blocks = nn.ModuleList(
        nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 32)) for _ in range(3)
    )
    module = nn.Sequential()
    module.blocks = blocks
    inputs = torch.randn(4, 64, 32)

    def run(x):
        for block in blocks:
            x = block(x)
        return x

    before = run(inputs[0])
    forwards = [lambda x=x: run(x) for x in inputs]
    for order in ("full_precision", "sequential"):
        quantizer = Gptq(calibration_inputs=order)
        by_blocks = quantize_module(module, forwards, quantizer, [3, 4], "blocks", quiet=True)
        whole = quantize_module(module, forwards, quantizer, [3, 4], quiet=True)
        assert torch.equal(run(inputs[0]), before)
        for bits in (3, 4):
            assert by_blocks[bits].keys() == whole[bits].keys()
            for name, layer in whole[bits].items():
                assert torch.equal(layer.weight.codes, by_blocks[bits][name].weight.codes)
        assert all(layer.output_error < 0.5 for layer in whole[3].values())
    plain = quantize_module(module, forwards, Rtn(), [3], quiet=True)[3]
    solved = quantize_module(module, forwards, Gptq(), [3], quiet=True)[3]
    errors = []
    for layers in (plain, solved):
        original = {k: v.clone() for k, v in module.state_dict().items()}
        write_(module, layers)
        errors.append(float((run(inputs[0]) - before).detach().norm()))
        module.load_state_dict(original)
    assert errors[1] < errors[0]
    with pytest.raises(InputError, match="has no 'layers'"):
        quantize_module(module, forwards, Gptq(), [3], "layers")


@pytest.mark.parametrize("order", ["full_precision", "sequential"])
def test_a_finer_allocation_takes_each_parts_codes_from_the_store(model, tmp_path, order):
    artifacts = prepared_for(order).artifacts(Store(tmp_path), quiet=True)
    allocation = BitAllocation.parse("qformer.attn=3,qformer.ff=8").over(model.components)
    reports = artifacts.write_(model, allocation)
    states = dict(model.states)
    component = model.components["qformer"]
    written = {layer.name: layer.module.weight.detach().clone() for layer in component.layers}
    model.restore_()
    for layer in component.layers:
        bits = 3 if layer.layer_type == "attn" else 8
        stored = {x.name: q for x, q in artifacts.layers(model, "qformer", bits)}
        assert torch.equal(written[layer.name], stored[layer.name].weight.dequantize())
    assert {r.bits for r in reports if r.component == "qformer"} == {3, 8}
    artifacts.write_(model, BitAllocation.parse("qformer=3").over(model.components))
    assert model.states["qformer"] != states["qformer"]  # no stage's outputs are mistaken
    model.restore_()


def test_a_part_without_layers_is_refused_before_the_work():
    options = EvalOptions(model="embedded-blip2", limit="8")
    with pytest.raises(InputError, match="is not a valid part"):
        prepare(options, {}, lambda parts: [BitAllocation.parse("qformer.cross=3").over(parts)])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-50] ^= 4
    path.write_bytes(content)


def test_damaged_blocks_are_computed_again_and_never_written_into_the_model(
    model, tmp_path, caplog
):
    allocation = BitAllocation.parse("vit=8 qformer=3").over(model.components)
    layers = [x for name in ("vit", "qformer") for x in model.components[name].layers]

    def weights(store):
        prepared_for("sequential").artifacts(store, quiet=True).write_(model, allocation)
        result = [layer.module.weight.detach().clone() for layer in layers]
        model.restore_()
        return result

    used = Store(tmp_path)
    expected = weights(used)
    for store in (used, Store(tmp_path)):
        victims = [e.path for e in store.entries() if e.key["bits"] in (3, 8)][::3]
        for path in victims:
            flip_a_bit(path)
        assert all(map(torch.equal, weights(store), expected))
        assert all(f"{path} is damaged" in caplog.text for path in victims)
        assert not any(entry.verify() for entry in store.entries())
        caplog.clear()


def test_a_block_that_vanishes_while_a_trial_is_written_is_computed_again(
    model, tmp_path, monkeypatch
):
    artifacts = prepared_for("full_precision").artifacts(Store(tmp_path), quiet=True)
    allocation = BitAllocation.parse("qformer=3").over(model.components)
    reports = artifacts.write_(model, allocation)
    model.restore_()
    get, damaged = Store.get, []

    def vanish(self, key):
        if not damaged and key.block == 2:
            damaged.append(key)
            flip_a_bit(self.path(key))
        return get(self, key)

    monkeypatch.setattr(Store, "get", vanish)
    assert artifacts.write_(model, allocation) == reports
    assert damaged
    model.restore_()
