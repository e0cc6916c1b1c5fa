"""Generated text: reasoning is stripped, and logits that are not finite are detected."""

import logging
from collections import Counter
from dataclasses import replace

import pytest
import torch
from asking import ask
from mmq_plugins.embedded.scenes import make_scene, render
from tiny_vlms import build, tiny_vlm

from mmq.errors import InputError
from mmq.models.generation import decode_answers

PICTURE = render(make_scene(0))


def test_reasoning_between_special_tokens_is_found_before_they_are_dropped():
    from tiny_vlms import tokenizer

    tokens = tokenizer("<think>", "</think>")
    rows = torch.tensor([tokens("how<think>many</think>a star</s>")["input_ids"]])
    assert decode_answers(tokens, rows, 1, ["how"]) == (["a star"], 0)


def test_reasoning_that_the_limit_cuts_is_counted_and_reported(caplog):
    model = tiny_vlm("idefics3")
    model.observations.clear()
    watch = model.watched()
    text = model.processor.tokenizer("<think>one", return_tensors="pt")["input_ids"]
    with caplog.at_level(logging.WARNING):
        assert model.answers(text.repeat(2, 1), watch, ["", ""]) == ["", ""]
    assert model.observations == {"answers/unfinished_reasoning": 2}
    assert "--max-new-tokens" in caplog.text
    model.observations.clear()


@pytest.fixture
def broken():
    """An Idefics3 whose second block overflows."""
    module, processor = build("idefics3")
    model = replace(
        tiny_vlm("idefics3"), module=module, processor=processor, observations=Counter()
    )
    processor.tokenizer.padding_side = "left"
    module.model.text_model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
    return model


def test_an_unquantized_model_with_broken_logits_stops_with_the_layer(broken):
    with pytest.raises(InputError, match=r"text_model\.layers\.1\.mlp\.down_proj \(Linear\)"):
        ask(broken, [PICTURE], ["how many?"])


def test_broken_logits_of_a_quantized_model_are_counted(broken):
    broken.states["llm"] = "quantized"
    ask(broken, [PICTURE] * 2, ["how many?", "why?"], num_beams=2)
    assert broken.observations == {"answers/nonfinite_logits": 2}
