"""Blocks one after another see what they see in the model's own forwards."""

import pytest
import torch

from mmq.artifacts.artifacts import component_blocks
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.prepare import prepare
from mmq.quantization.blocks import capture, read
from mmq.tensors.layer_inputs import LayerInputs

MODELS = {"embedded-blip2": "vqa", "embedded-llava": "gqa", "embedded-retrieval": "retrieval"}


@pytest.fixture(scope="module", params=MODELS)
def loaded(request, tmp_path_factory):
    chosen = EvalOptions(
        model=request.param,
        task=MODELS[request.param],
        quantizer="gptq",
        limit="8",
        calibration_samples=20,
    )
    prepared = prepare(chosen, {}, lambda parts: [])
    model = prepared.load()
    artifacts = prepared.artifacts(Store(tmp_path_factory.mktemp("store")), quiet=True)
    return model, artifacts.calibration


def real_inputs(model, calibration):
    """Every layer's inputs summed in the model's own forwards."""
    found = {}

    def listen(layer):
        def hook(module, given):
            sums = found.setdefault(layer.name, LayerInputs(layer.shape[1]))
            sums.update_(given[0])

        return hook

    layers = [layer for component in model.components.values() for layer in component.layers]
    handles = [layer.module.register_forward_pre_hook(listen(layer)) for layer in layers]
    with torch.no_grad():
        for forward in calibration.forwards(model):
            forward()
    for handle in handles:
        handle.remove()
    return found


def test_block_by_block_every_layer_reads_what_it_reads_in_the_model(loaded):
    model, calibration = loaded
    expected = real_inputs(model, calibration)
    seen = set()
    for component in model.components.values():
        for blocks in component_blocks(model, component):
            calls = capture(blocks, calibration.forwards(model))
            for number, block in enumerate(blocks):
                for group, inputs in read(block, calls, number, advance=True).items():
                    for name in group:
                        seen.add(name)
                        share = expected[name].count / inputs.count
                        assert share == int(share)  # the matching forward reads pictures again
                        assert torch.allclose(
                            inputs.gram * share, expected[name].gram, rtol=1e-3, atol=1e-2
                        )
    layers = {x.name for component in model.components.values() for x in component.layers}
    assert seen == layers == set(expected)
