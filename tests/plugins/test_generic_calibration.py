"""Calibration of the general family: every layer of every architecture is reached."""

from functools import partial

import pytest
import torch
from asking import requests_for
from mmq_plugins.embedded.scenes import make_scene, render
from mmq_plugins.quantizers.gptq import Gptq
from tiny_models import PROCESSORS, TINY, random_module, save_tiny, tiny_config
from tiny_vlms import tiny_vlm

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.component_blocks import component_blocks
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.data.calibration import Calibration
from mmq.models.components import find_components
from mmq.models.loaded import LoadedModel
from mmq.models.skeleton import family_of
from mmq.prepare import prepare
from mmq.quantization.block_inputs import read
from mmq.quantization.capture import capture
from mmq.quantization.modules import quantize_module
from mmq.tensors.layer_inputs import LayerInputs

ORDERS = ("full_precision", "sequential")


@pytest.fixture(scope="module", params=PROCESSORS)
def source(request, tmp_path_factory):
    return save_tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("task", ["vqa", "captioning"])
def test_every_layer_is_solved_from_the_models_own_forwards(source, task, order, tmp_path):
    options = EvalOptions(
        model=source, task=task, quantizer="gptq", limit="4", calibration_samples=6
    )
    prepared = prepare(
        options,
        {"calibration-inputs": order},
        lambda parts: [BitAllocation.uniform(parts, 4)],
    )
    model = prepared.load()
    artifacts = prepared.artifacts(Store(tmp_path), quiet=True)
    reports = artifacts.write_(model, BitAllocation.uniform(list(model.components), 4))
    model.restore_()
    assert {report.component for report in reports} == {"vit", "llm"}
    assert len(reports) == sum(len(part.layers) for part in model.components.values())
    for report in reports:
        assert report.note == "", report.name
        assert 0 < report.output_error < 0.2, report.name


def image_inputs(model_type, config):
    """A picture as the architecture's processor would give it, and how many tokens it takes."""
    torch.manual_seed(1)
    if model_type == "qwen2_vl":
        vision = config.vision_config
        pixels = torch.randn(16, 3 * vision.temporal_patch_size * vision.patch_size**2)
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 4, 4]])}, 4
    if model_type == "paligemma":
        return {"pixel_values": torch.randn(1, 3, 32, 32)}, 16
    return {"pixel_values": torch.randn(1, 1, 3, 32, 32)}, 4


@pytest.mark.parametrize("model_type", TINY)
def test_block_by_block_every_layer_reads_what_it_reads_in_the_model(model_type, tmp_path):
    """Architectures without a processor here get their tensors directly."""
    module = random_module(tiny_config(model_type, tmp_path), 0.1).eval().requires_grad_(False)
    family = family_of(module.config)
    model = LoadedModel(
        module, None, family, "", "", "cpu", components=find_components(module, family)
    )
    image, count = image_inputs(model_type, module.config)
    forwards = []
    for start in (20, 40):
        ids = torch.tensor([[2, *[4] * count, *range(start, start + 15)]])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
        if model_type == "qwen2_vl":
            given["position_ids"] = torch.arange(ids.shape[1]).expand(3, 1, -1)
        forwards.append(partial(module, **given, **image))
    expected = inputs_of(model, forwards)
    for component in model.components.values():
        reached = set()
        for blocks in component_blocks(model, component):
            calls = capture(blocks, lambda: forwards)
            for number, block in enumerate(blocks):
                for group, inputs in read(block, calls, number, advance=True).items():
                    reached |= group
                    for name in group:
                        assert inputs.count == expected[name].count
                        assert torch.allclose(inputs.gram, expected[name].gram, 1e-3, 1e-2)
        assert reached == {layer.name for layer in component.layers}


@torch.no_grad()
def inputs_of(model, forwards):
    """Every layer's inputs, summed in the model's own forwards."""
    layers = [layer for component in model.components.values() for layer in component.layers]
    result = {layer.name: LayerInputs(layer.shape[1]) for layer in layers}
    handles = [
        layer.module.register_forward_pre_hook(
            lambda module, given, sums=result[layer.name]: sums.update_(given[0])
        )
        for layer in layers
    ]
    for forward in forwards:
        forward()
    for handle in handles:
        handle.remove()
    return result


@pytest.mark.parametrize("name", ["blip", "aya_vision"])
def test_no_cache_grows_while_blocks_are_run_again(name):
    model = tiny_vlm(name)
    pictures = [render(make_scene(k)) for k in range(2)]
    requests = requests_for(model, pictures, ["how many?", "what color is this picture?"])
    calibration = Calibration(tuple(zip(requests, ["two", "a dark red"], strict=True)))
    (path,) = model.components["llm"].paths
    use_cache = model.module.config.get_text_config().use_cache
    forwards = list(calibration.forwards(model))
    solved = quantize_module(model.module, forwards, Gptq(), [4], path, quiet=True)[4]
    assert len(solved) == len(model.components["llm"].layers)
    assert all(layer.output_error is not None for layer in solved.values())
    assert model.module.config.get_text_config().use_cache == use_cache
