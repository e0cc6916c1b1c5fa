"""Generated text: reasoning is stripped, and logits that are not finite are detected."""

import copy
import json
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
from mmq.models.generation_settings import generation_settings, reset_others_

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


QUESTIONS = ["how many?", "what color is the background?"]
NOT_APPLIED = {
    "num_return_sequences": 3, "return_dict_in_generate": True, "prompt_lookup_num_tokens": 3,
    "num_beam_groups": 3, "diversity_penalty": 0.5, "penalty_alpha": 0.6, "top_k": 4,
    "dola_layers": "high", "max_time": 1e-9, "cache_implementation": "quantized",
    "token_healing": True, "low_memory": True, "do_sample": True,
    "watermarking_config": {"bias": 9},
}  # fmt: skip


def with_settings(monkeypatch, **settings):
    """An Idefics3 with these settings in its generation_config.json, as it is loaded."""
    model = tiny_vlm("idefics3")
    config = copy.deepcopy(model.module.generation_config)
    for name, value in settings.items():
        setattr(config, name, value)
    monkeypatch.setattr(model.module, "generation_config", config)
    reset_others_(model.module)
    return model


@pytest.mark.parametrize("beams", [1, 2])
def test_settings_that_are_random_or_fail_are_not_applied(monkeypatch, beams):
    expected = ask(tiny_vlm("idefics3"), [PICTURE] * 2, QUESTIONS, num_beams=beams)
    model = with_settings(monkeypatch, **NOT_APPLIED, repetition_penalty=1.0, eos_token_id=[2])
    assert ask(model, [PICTURE] * 2, QUESTIONS, num_beams=beams) == expected
    assert model.module.generation_config.eos_token_id == [2]


def test_an_answer_ends_before_the_checkpoints_stop_string(monkeypatch):
    (answer,) = ask(tiny_vlm("idefics3"), [PICTURE], QUESTIONS[:1], max_new_tokens=12)
    stop = answer[len(answer) // 2]
    model = with_settings(monkeypatch, stop_strings=[stop])
    expected = answer.partition(stop)[0].strip()
    assert ask(model, [PICTURE], QUESTIONS[:1], max_new_tokens=12) == [expected]


def test_without_a_file_of_its_own_the_settings_in_config_json_are_logged(tmp_path):
    model = tiny_vlm("idefics3")
    facts = model.module.config.to_dict() | {"repetition_penalty": 1.5, "num_beams": 3}
    (tmp_path / "config.json").write_text(json.dumps(facts, default=str))
    assert generation_settings(str(tmp_path), model.family) == {"repetition_penalty": 1.5}


def test_a_processor_that_does_not_fit_the_model_is_refused_with_the_sample():
    processor = copy.deepcopy(tiny_vlm("idefics3").processor)
    processor.image_seq_len += 1
    model = replace(tiny_vlm("idefics3"), processor=processor)
    with pytest.raises(InputError, match="cannot answer sample '0' .*its processor's settings"):
        ask(model, [PICTURE], ["how many?"])
    model.states["llm"] = "quantized"
    with pytest.raises((ValueError, RuntimeError), match="match|elements"):
        ask(model, [PICTURE], ["how many?"])
