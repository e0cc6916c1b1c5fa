"""Generated answers outlive a scoring that fails, and are trusted only as they were written."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.contracts import Sample
from mmq.evaluation.generating import answers_of
from mmq.evaluation.saved_answers import SavedAnswers
from mmq.prepare import prepare
from mmq.record import TrialSpec
from mmq.trial import run_trial

SAMPLES = [Sample(str(k), str(k), Path(f"{k}.jpg")) for k in range(4)]


class Talker:
    """Answers with numbers that it never repeats."""

    said = 0

    def predict(self, model, samples, progress):
        self.said += 1
        return [f"{self.said}.{sample.id} \ud800|||" for sample in samples]


@pytest.fixture
def model(tmp_path):
    return SimpleNamespace(saved_answers=SavedAnswers(tmp_path / "answers" / "a.json"))


def test_answers_that_were_not_scored_are_not_generated_again(model):
    talker = Talker()
    first = answers_of(talker, model, SAMPLES, None)
    assert answers_of(talker, model, SAMPLES, None) == first
    assert answers_of(talker, model, SAMPLES[2:], None) == first[2:]
    assert talker.said == 1
    model.saved_answers.remove()
    model.saved_answers.remove()
    assert answers_of(talker, model, SAMPLES, None) != first


def test_parts_are_saved_beside_each_other(model):
    talker = Talker()
    parts = answers_of(talker, model, SAMPLES[:2], None) + answers_of(
        talker, model, SAMPLES[2:], None
    )
    assert answers_of(talker, model, SAMPLES, None) == parts


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("1.0", "1.7"),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[" * 10_000,
        lambda text: json.dumps({"answers": [1], "sha256": ""}),
        lambda text: "[]",
    ],
)
def test_damaged_answers_are_reported_and_generated_again(model, damage, caplog):
    talker = Talker()
    answers_of(talker, model, SAMPLES, None)
    path = model.saved_answers.path
    path.write_text(damage(path.read_text()))
    with caplog.at_level(logging.WARNING):
        assert answers_of(talker, model, SAMPLES, None)[0].startswith("2.0")
    assert "the model is asked again" in caplog.text


@pytest.fixture(scope="module")
def prepared():
    chosen = EvalOptions(model="embedded-llava", task="gqa", limit="4")
    return prepare(chosen, {"num-beams": "1"}, lambda parts: [])


def test_a_trial_whose_scoring_fails_is_scored_again_without_asking(
    prepared, tmp_path, monkeypatch
):
    loaded, kind = prepared.load(), type(prepared.evaluator)
    predict, score, predicted = kind.predict, kind.score, []

    def watched(self, *arguments):
        predicted.append(predict(self, *arguments))
        return predicted[-1]

    def failing(self, *arguments):
        raise RuntimeError("the scorer died")

    def trial(name):
        spec = TrialSpec(prepared.eval_spec, BitAllocation.parse(name))
        artifacts = prepared.artifacts(Store(tmp_path), quiet=True)
        return run_trial(spec, loaded, artifacts, prepared.evaluator, prepared.samples, True)

    monkeypatch.setattr(kind, "predict", watched)
    monkeypatch.setattr(kind, "score", failing)
    with pytest.raises(RuntimeError, match="the scorer died"):
        trial("vit=16,llm=16")
    monkeypatch.setattr(kind, "score", score)
    record = trial("vit=16,llm=16")
    assert len(predicted) == 1
    assert [p.text for p in record.details.predictions] == predicted[0]
    trial("vit=16,llm=16")  # scored, so that nothing is saved any more
    assert len(predicted) == 2
    assert loaded.saved_answers is None
