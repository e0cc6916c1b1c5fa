"""DiffusionGemma: answers are denoised, and its encoder shares its decoder's weights."""

import pytest
import torch
from asking import requests_for
from mmq_plugins.embedded.scenes import make_scene, render
from mmq_plugins.models.block_diffusion import canvas_inputs, denoised
from mmq_plugins.models.generic_inputs import prompt_inputs
from tiny_vlms import names, tiny_vlm

from mmq.artifacts.component_blocks import component_blocks
from mmq.contracts import GenerationConfig
from mmq.data.calibration import Calibration
from mmq.models.generation import LogitsWatch, decoding
from mmq.quantization.block_inputs import listening, read
from mmq.quantization.blocks import ReplayedCall
from mmq.quantization.capture import capture
from mmq.tensors.layer_inputs import LayerInputs

CANVAS = 8


@pytest.fixture(scope="module")
def model():
    if "diffusion_gemma" not in names():
        pytest.skip("this version of transformers has no DiffusionGemma")
    return tiny_vlm("diffusion_gemma")


@pytest.fixture(scope="module")
def requests(model):
    pictures = [render(make_scene(k)) for k in range(2)]
    return requests_for(model, pictures, ["how many?", "what color is the background?"])


def test_an_answer_is_the_same_again_and_has_no_more_tokens_than_allowed(model, requests):
    before = torch.random.get_rng_state()
    pictures = [[requests[0].images[0].open()]]
    inputs = prompt_inputs(model.module, model.processor, pictures, [model.render(requests[0])])
    start = inputs["input_ids"].shape[1]
    answers = []
    for length in (2, 2, CANVAS + 2):
        config = GenerationConfig(max_new_tokens=length)
        settings = decoding(config, LogitsWatch(), model.module, model.processor.tokenizer)
        tokens = denoised(model.module, inputs, settings | {"max_denoising_steps": 3})
        assert start < tokens.shape[1] <= start + length
        answers.append(tokens[0, start:].tolist())
    assert answers[0] == answers[1] == answers[2][:2]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_answer_of_a_calibration_pair_is_on_the_canvas(model):
    inputs = canvas_inputs(model.module, {"input_ids": torch.ones(1, 3)}, [7, 9])
    assert inputs["decoder_input_ids"].tolist() == [[7, 9, *[1] * (CANVAS - 2)]]
    longer = canvas_inputs(model.module, {}, list(range(CANVAS + 3)))
    assert longer["decoder_input_ids"].tolist() == [list(range(CANVAS))]


@torch.no_grad()
def test_a_shared_weight_is_calibrated_on_what_encoder_and_decoder_read(model, requests):
    calibration = Calibration(tuple(zip(requests, ["two", "dark red"], strict=True)))
    forwards = list(calibration.forwards(model))
    llm = model.components["llm"]
    assert llm.twins == (("model.encoder.language_model.layers", "model.decoder.layers"),)
    sums = {layer.name: LayerInputs(layer.shape[1]) for layer in llm.layers}
    for forward in forwards:
        with listening({layer.name: layer.matrix for layer in llm.layers}) as inputs_read:
            forward()
        for name, rows in inputs_read:
            sums[name].update_(rows)
    (blocks,) = component_blocks(model, llm)
    calls = capture(blocks, lambda: forwards)
    assert all(isinstance(call, ReplayedCall) for call in calls)  # its cache would grow
    for number, block in enumerate(blocks):
        for group, inputs in read(block, calls, number).items():
            for name in group:
                assert inputs.count == sums[name].count
                assert torch.allclose(inputs.gram, sums[name].gram, 1e-3, 1e-2)
