"""Outputs survive a failed scoring, and are used only if their checksum matches."""

import json
import logging
from collections import Counter
from pathlib import Path

import pytest
from mmq_plugins.evaluators.captioning import Captioning

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.contracts import FileImage, Sample, VisionLanguageModel
from mmq.evaluation.generating import generate_outputs
from mmq.evaluation.saved_outputs import SavedOutputs
from mmq.prepare import prepare
from mmq.record import TrialSpec
from mmq.trial import run_trial

SAMPLES = [Sample(str(k), str(k), (FileImage(Path(f"{k}.jpg")),)) for k in range(4)]


class Talker(VisionLanguageModel):
    """Answers with numbers that never repeat."""

    calls = 0

    def generate(self, requests, config, progress):
        self.calls += 1
        return [f"{self.calls}.{request.sample_id} \ud800|||" for request in requests]


@pytest.fixture
def saved(tmp_path):
    return SavedOutputs(tmp_path / "outputs" / "a.json")


def outputs_of(model, samples, saved):
    return generate_outputs(Captioning(), model, samples, None, saved)


def test_outputs_that_were_not_scored_are_not_generated_again(saved):
    talker = Talker()
    first = outputs_of(talker, SAMPLES, saved)
    assert outputs_of(talker, SAMPLES, saved) == first
    assert outputs_of(talker, SAMPLES[2:], saved) == first[2:]
    assert talker.calls == 1
    saved.remove()
    saved.remove()
    assert outputs_of(talker, SAMPLES, saved) != first


def test_parts_are_saved_beside_each_other(saved):
    talker = Talker()
    parts = outputs_of(talker, SAMPLES[:2], saved) + outputs_of(talker, SAMPLES[2:], saved)
    assert outputs_of(talker, SAMPLES, saved) == parts


class Counting(Talker):
    """Reports one broken answer per call."""

    def __init__(self):
        self.observations = Counter()

    def generate(self, requests, config, progress):
        self.observations["broken"] += 1
        return super().generate(requests, config, progress)


def test_counts_from_generating_are_restored_with_saved_outputs(saved):
    outputs_of(Counting(), SAMPLES[:2], saved)
    outputs_of(Counting(), SAMPLES[2:], saved)
    later = Counting()
    outputs_of(later, SAMPLES, saved)
    assert later.observations == {"broken": 2}
    later.observations.clear()
    outputs_of(later, SAMPLES[2:], saved)
    assert later.observations == {"broken": 1}


def test_the_samples_without_outputs_are_found_in_one_read(saved, monkeypatch):
    saved.add(SAMPLES[:3:2], ["a", "b"])
    reads, read = [], SavedOutputs._read
    monkeypatch.setattr(SavedOutputs, "_read", lambda self: reads.append(1) or read(self))
    assert saved.missing(SAMPLES) == [SAMPLES[1], SAMPLES[3]]
    assert len(reads) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("1.0", "1.7"),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[" * 10_000,
        lambda text: json.dumps({"outputs": [1], "sha256": ""}),
        lambda text: "[]",
    ],
)
def test_damaged_outputs_are_reported_and_generated_again(saved, damage, caplog):
    talker = Talker()
    outputs_of(talker, SAMPLES, saved)
    saved.path.write_text(damage(saved.path.read_text()))
    with caplog.at_level(logging.WARNING):
        assert outputs_of(talker, SAMPLES, saved)[0].startswith("2.0")
    assert "generating again" in caplog.text


@pytest.fixture(scope="module")
def prepared():
    options = EvalOptions(model="embedded-llava", task="gqa", limit="4")
    return prepare(options, {"num-beams": "1"}, lambda parts: [])


def test_a_trial_whose_scoring_fails_is_scored_again_without_generating(
    prepared, tmp_path, monkeypatch
):
    loaded, scorer = prepared.load(), type(prepared.task.scorer)
    generate, score, generated = type(loaded).generate, scorer.score, []

    def watched(self, *arguments):
        generated.append(generate(self, *arguments))
        return generated[-1]

    def failing(self, *arguments):
        raise RuntimeError("the scorer died")

    def trial(name):
        spec = TrialSpec(prepared.eval_spec, BitAllocation.parse(name))
        artifacts = prepared.artifacts(Store(tmp_path), quiet=True)
        return run_trial(spec, loaded, artifacts, prepared.task, True)

    monkeypatch.setattr(type(loaded), "generate", watched)
    monkeypatch.setattr(scorer, "score", failing)
    with pytest.raises(RuntimeError, match="the scorer died"):
        trial("vit=16,llm=16")
    monkeypatch.setattr(scorer, "score", score)
    result = trial("vit=16,llm=16")
    assert len(generated) == 1
    assert [p.text for p in result.details.predictions] == generated[0]
    trial("vit=16,llm=16")  # scored, so that nothing is saved any more
    assert len(generated) == 2
