"""AWQ's scale per input, without any rounding, changes no family's outputs.

Linear layers of all kinds are among them: after LayerNorm, RMSNorm, GELU, SiLU and ReLU, with
biases and without.
"""

from functools import partial
from unittest import mock

import pytest
import torch
from mmq_plugins.models.generic import Generic
from tiny_models import load_tiny, random_module, tiny_config

from mmq.contracts import AnswerFormat, Request
from mmq.data.calibration import Calibration
from mmq.data.source import find_source
from mmq.models.components import find_components
from mmq.models.loading import LoadedModel, load_model
from mmq.models.unquantized import unread_blocks
from mmq.tensors import affine
from mmq.tensors.quantized_weight import QuantizedWeight

HEADS = {  # where a family's outputs come from
    "embedded-blip2": ("language_model.lm_head",),
    "embedded-retrieval": ("vision_projection", "text_projection", "itm_head"),
    "embedded-llava": ("lm_head",),
    "idefics3": ("lm_head",),
    "paligemma": ("lm_head",),
    "qwen2_vl": ("lm_head",),
}
FAR = 1e-5  # of the largest output: no scaling may move any output further
STD = 0.1  # of random weights; with 0.2 float32 alone moves some outputs by nearly FAR


def qwen2_vl(folder):
    """A tiny Qwen2-VL with the forward of a picture of 4 x 4 patches; its processor needs more."""
    module = random_module(tiny_config("qwen2_vl", folder), STD).eval().requires_grad_(False)
    components = find_components(module, Generic())
    model = LoadedModel(module, None, Generic(), "qwen2_vl", "", "cpu", components)
    vision = module.config.vision_config
    pixels = torch.randn(16, 3 * vision.temporal_patch_size * vision.patch_size**2)
    image = {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 4, 4]])}
    ids = torch.tensor([[2, *[4] * 4, *range(20, 40)]])  # 4 merged patches
    places = torch.arange(ids.shape[1]).expand(3, 1, -1)
    given = {"input_ids": ids, "position_ids": places, "use_cache": False}
    return model, [partial(module, **given, **image)]


@pytest.fixture(scope="module", params=HEADS)
def runnable(request, tmp_path_factory):
    """A model of a family, its forwards, and the names of the heads."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    if name == "qwen2_vl":
        return *qwen2_vl(folder), HEADS[name]
    embedded = name.startswith("embedded")
    model = load_model(name) if embedded else load_tiny(name, folder, STD)
    samples = find_source("vqa", "scenes").samples()[:2]
    formats = model.family.formats
    template = formats[AnswerFormat.SHORT_ANSWER].template if formats else "a {}"
    prompt = template.replace("{}", "where is the large red star?")
    pairs = [(Request((sample.image,), prompt, sample.id), "left") for sample in samples]
    return model, list(Calibration(tuple(pairs)).forwards(model)), HEADS[name]


@torch.no_grad()
def outputs(model, forwards, heads):
    """The outputs of all heads in these forward passes."""
    result = []
    modules = [model.module.get_submodule(head) for head in heads]
    handles = [m.register_forward_hook(lambda m, i, out: result.append(out)) for m in modules]
    for forward in forwards:
        forward()
    for handle in handles:
        handle.remove()
    assert len(result) >= len(heads)
    return result


def distance(before, after):
    """The largest change of an output by the largest output, of the head where that is most."""
    return max(
        float((one - other).abs().max() / one.abs().max())
        for one, other in zip(before, after, strict=True)
    )


def draw_scales(model, seed):
    """A scale per input for every layer, 2^-3 to 2^3, float32.

    The embedded models' weights were saved in float16: scales in float16 would lose nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        layer.name: torch.exp2(torch.rand(layer.shape[1], generator=generator) * 6 - 3)
        for component in model.components.values()
        for layer in component.layers
    }


def unrounded(weight, scale):
    """The written form of a scaled weight whose codes represent it exactly."""
    columns = weight.shape[1]
    quantized = QuantizedWeight(
        codes=torch.zeros(weight.shape, dtype=torch.uint8),
        scale=torch.ones(1, 1),
        zero_point=None,
        group_size=columns,
        bits=8,
        input_scale=scale,
    )
    scaled = weight * scale
    with mock.patch.object(affine, "dequantize", return_value=scaled):
        return quantized.dequantize()


def layers_of(model):
    return [layer for component in model.components.values() for layer in component.layers]


def write_(model, weights):
    for name, component in model.components.items():
        own = {layer.name for layer in component.layers}
        model.write_(name, {layer: w for layer, w in weights.items() if layer in own})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scaled_weights_written_by_the_project_leave_all_outputs(runnable, seed):
    model, forwards, heads = runnable
    before = outputs(*runnable)
    scales = draw_scales(model, seed)
    weights = {x.name: unrounded(x.module.weight, scales[x.name]) for x in layers_of(model)}
    same = sum(bool((weights[x.name] == x.module.weight).all()) for x in layers_of(model))
    assert same == 0  # they were divided indeed
    try:
        write_(model, weights)
        assert distance(before, outputs(*runnable)) <= FAR
    finally:
        model.restore_()
    assert distance(before, outputs(*runnable)) == 0


def test_layers_whose_inputs_are_divided_instead_leave_all_outputs(runnable):
    """The other way to run the same codes: x / s before a layer with the weight W * s."""
    model, forwards, heads = runnable
    before = outputs(*runnable)
    scales = draw_scales(model, 3)
    handles = [
        layer.module.register_forward_pre_hook(
            lambda m, given, s=scales[layer.name]: (given[0] / s,)
        )
        for layer in layers_of(model)
    ]
    try:
        write_(model, {x.name: x.module.weight * scales[x.name] for x in layers_of(model)})
        assert distance(before, outputs(*runnable)) <= FAR
    finally:
        model.restore_()
        for handle in handles:
            handle.remove()


def test_one_missing_scale_in_one_layer_is_detected(runnable):
    """The two tests above can fail."""
    model, forwards, heads = runnable
    before = outputs(*runnable)
    unread = unread_blocks(model.module.config)
    for layer in layers_of(model):
        if layer.block >= model.components["vit"].blocks - unread and ".vision" in layer.name:
            continue  # nothing reads what they give
        largest = int(layer.module.weight.norm(dim=0).argmax())
        scale = torch.ones(layer.shape[1])
        scale[largest] = 2.0
        try:
            write_(model, {layer.name: layer.module.weight * scale})
            assert distance(before, outputs(*runnable)) > FAR, layer.name
        finally:
            model.restore_()


def test_every_kind_of_layer_occurs():
    """The norms and activations before the layers, and biases, are those of the models."""
    kinds, biases = set(), set()
    for name in ("embedded-blip2", "embedded-llava"):
        model = load_model(name)
        kinds |= {type(module).__name__ for module in model.module.modules()}
        biases |= {layer.module.bias is not None for layer in layers_of(model)}
    assert {"LayerNorm", "LlamaRMSNorm", "GELUActivation", "ReLU"} <= kinds
    assert biases == {True, False}
