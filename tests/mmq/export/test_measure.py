"""Costs are medians over rounds in which the models take turns."""

import json
from dataclasses import replace

import pytest
from model_folders import copied

from mmq.contracts.timing import AnswerTiming, Engine
from mmq.contracts.vlm import GenerationConfig, Request, VisionLanguageModel
from mmq.errors import InputError
from mmq.export import measure
from mmq.export.facts import FACTS, read_facts, write_facts
from mmq.export.measure import ExportedModel, Measurement, Spread, Workload, ratios, time_answers
from mmq.export.pictures import sample_picture
from mmq.export.unquantized import unquantized
from mmq.models.loading import fingerprint, load_model, locate, read_config

HERE = Engine("engine", "1.0", 2, 0)


def measurement(seconds, load=1.0, peak=100):
    answers = tuple(AnswerTiming(s, 5, s / 5, s * 4 / 5, vision=s / 10) for s in seconds)
    return Measurement(HERE, "a processor", load, answers, peak, 1000)


def test_ratios_are_taken_within_each_round():
    slow_machine_at_last = measurement([1.0, 1.0, 8.0], load=2.0, peak=50)
    other = measurement([2.0, 2.0, 16.0], peak=None)
    result = ratios(slow_machine_at_last, other)
    assert result["answer_seconds"] == Spread(0.5, 0.5, 0.5)
    assert result["tokens_per_second"].median == pytest.approx(2.0)
    assert result["load_seconds"].median == 2.0
    assert "peak_bytes" not in result


def test_metrics_are_medians_with_their_range():
    values = measurement([3.0, 1.0, 2.0]).metrics()
    assert (values["answer_seconds"], values["answer_seconds_low"]) == (2.0, 1.0)
    assert values["answer_seconds_high"] == 3.0
    assert values["tokens_per_second"] == pytest.approx(2.5)
    assert values["vision_seconds"] == pytest.approx(0.2)


def test_an_engine_that_does_not_report_a_time_has_no_value_for_it():
    answer = AnswerTiming(1.0, 1, 1.0, 0.0)
    cost = Measurement(HERE, "a processor", 1.0, (answer,), None, 10)
    assert cost.metrics().keys() == {
        *("load_seconds", "file_bytes", "answer_seconds", "answer_seconds_low"),
        *("answer_seconds_high", "first_token_seconds", "first_token_seconds_low"),
        "first_token_seconds_high",
    }


def test_more_models_than_fit_into_memory_are_refused_at_once(tmp_path, monkeypatch):
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "weights").write_bytes(bytes(1000))
    monkeypatch.setattr(measure, "available_memory", lambda: 999)
    with pytest.raises(InputError, match="memory: 1 models take at least"):
        time_answers({"a": ExportedModel(folder, "torch")}, Workload())


def test_the_engines_own_reason_is_the_error(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(InputError, match="Unknown target 'gufg'"):
        time_answers({"a": ExportedModel(folder, "gufg")}, Workload(), quiet=True)


class Counting(VisionLanguageModel):
    """Generates as many tokens as requested."""

    def __init__(self):
        self.configs = []

    def generate(self, requests, config, progress):
        self.configs.append((config.max_new_tokens, config.min_new_tokens))
        return ["a"] * len(requests)


def test_a_model_without_timings_of_its_own_is_timed_by_two_answers():
    model = Counting()
    timing = model.time_answer(None, GenerationConfig(max_new_tokens=8))
    assert model.configs == [(1, 1), (8, 8)]
    assert timing.tokens == 8
    assert timing.vision is None


@pytest.mark.parametrize("name", ["embedded-llava", "embedded-blip2"])
def test_a_model_in_this_process_reports_when_its_tokens_came(name):
    model = load_model(locate(name), "float32")
    request = Request((sample_picture(32),), "is there a circle?", "1")
    timing = model.time_answer(request, GenerationConfig(max_new_tokens=6, num_beams=5))
    assert timing.tokens == 6
    assert 0 < timing.vision < timing.first_token
    assert timing.first_token + timing.decoding <= timing.seconds
    assert not model.module.get_output_embeddings()._forward_hooks


def facts_of(folder, out):
    """The facts that an export of the checkpoint in a folder would have."""
    source = locate(str(folder))
    out.mkdir()
    write_facts(out, {
        "target": "torch", "model": str(folder), "dtype": "float32", "key": "k",
        "model_fingerprint": fingerprint(source, read_config(source), "float32"),
    })  # fmt: skip
    return ExportedModel.of(out, "cpu")


def test_the_unquantized_model_is_written_once_and_only_from_the_same_source(tmp_path):
    source = copied(tmp_path / "source")
    exported = facts_of(source, tmp_path / "mine")
    first = unquantized(exported)
    assert (first.folder / "config.json").read_bytes() == (source / "config.json").read_bytes()
    assert read_facts(first.folder)["allocation"] == {}
    assert unquantized(exported) == replace(exported, folder=first.folder)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "note": "changed"}))
    with pytest.raises(InputError, match="changed since it was exported"):
        unquantized(exported)
    assert (exported.folder / FACTS).exists()
