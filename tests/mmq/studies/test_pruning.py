"""Pruning: the rule on made-up scores, and pruned and completed trials."""

import json
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from mlflow import MlflowClient

from mmq.allocation.allocation import BitAllocation
from mmq.analysis import betting_test as rule
from mmq.analysis.betting_test import lead, log_capital
from mmq.analysis.fronts import Point
from mmq.artifacts.store import Store
from mmq.cli import main
from mmq.config import EvalOptions
from mmq.contracts import (
    AnswerFormat,
    Evaluation,
    FileImage,
    GeneratingEvaluator,
    Metric,
    Prediction,
    Request,
    Sample,
    Scorer,
    VisionLanguageModel,
)
from mmq.evaluation.generating import Task, evaluate
from mmq.models.size import Size
from mmq.prepare import prepare
from mmq.record import TrialSpec
from mmq.studies.pruning import Pruner, rungs, shuffled_pictures
from mmq.studies.records import Records
from mmq.system.home import home
from mmq.trial import run_trial


# --- the rule ------------------------------------------------------------------------------------
def order_of(sizes, rng):
    """Units of these sizes over samples in a row, in a random order."""
    ends = np.cumsum(sizes)
    units = [list(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
    return [units[k] for k in rng.permutation(len(units))]


def raced(rival, candidate, units, share, bounds=(0, 100)):
    seen = units[: round(share * len(units))]
    return lead(rival, [candidate[k] for u in seen for k in u], seen, len(units), bounds)


def right(share, n, rng):
    return 100.0 * (rng.random(n) < share)


def test_the_capital_does_not_grow_in_expectation_where_both_score_the_same():
    gains = np.array([[1, 0.3, 4, 2.5, 0.5], [3, 1, 1, 2, 0.5]]).T  # (units, betas)
    orders = [list(order) for order in permutations(range(5))]
    capital = [np.exp(log_capital(gains[order], gains.sum(0), 5)) for order in orders]
    assert np.mean(capital, axis=0) == pytest.approx(np.ones(5), abs=1e-9)


@pytest.mark.parametrize("kind", ["alike", "copy", "rare", "skewed"])
def test_an_equal_candidate_is_pruned_no_more_often_than_promised(kind, monkeypatch):
    monkeypatch.setattr(rule, "ERROR", 0.05)
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 4, 60)
    n = sizes.sum()
    rival = {
        "alike": right(0.7, n, rng),
        "copy": right(0.9, n, rng),
        "rare": np.full(n, 99.0),
        "skewed": np.where(rng.random(n) < 0.1, 100.0, rng.random(n) * 5),
    }[kind]
    candidate = rival.copy() if kind == "copy" else rng.permutation(rival)
    if kind == "rare":  # one sample in n makes up for all others
        candidate[:] = rival.mean() - 1 / n
        candidate[0] += n * (rival.mean() - candidate.mean())
    assert candidate.mean() == pytest.approx(rival.mean())
    pruned = sum(raced(rival, candidate, order_of(sizes, rng), 0.6).at_least > 0
                  for _ in range(400))  # fmt: skip
    assert pruned / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_the_bound_stays_below_the_true_lead_and_rises_with_the_observed_pictures():
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 3, 300)
    rival, candidate = right(0.8, sizes.sum(), rng), right(0.45, sizes.sum(), rng)
    truth = (rival - candidate).mean()
    bounds = []
    for _ in range(8):
        units = order_of(sizes, rng)
        bounds.append([raced(rival, candidate, units, s).at_least for s in (0.1, 0.3, 0.6, 1)])
    table = np.array(bounds)
    assert (table <= truth).all()
    assert (np.diff(table, axis=1) >= 0).all()
    assert table.mean(0)[1] > 0
    assert table.mean(0)[3] == pytest.approx(truth, abs=1)  # all seen: nothing is left to chance


def test_a_collapsed_candidate_is_certain_after_a_few_pictures_and_a_close_one_is_not():
    rng = np.random.default_rng(2)
    sizes = np.ones(200, dtype=int)
    rival, units = right(0.8, 200, rng), order_of(sizes, rng)
    result = raced(rival, np.zeros(200), units, 0.1)
    assert 0 < result.at_least < result.observed
    near = rival.copy()
    near[np.flatnonzero(rival)[:6]] = 0
    assert raced(rival, near, units, 0.6).at_least == 0


def test_a_rival_that_is_worse_never_leads():
    rng = np.random.default_rng(3)
    units = order_of(np.ones(100, dtype=int), rng)
    result = raced(right(0.3, 100, rng), right(0.8, 100, rng), units, 0.6)
    assert result.at_least == 0
    assert result.observed < 0


def test_scores_outside_their_bounds_are_an_error_not_a_wrong_bound():
    with pytest.raises(ValueError, match="some lie outside their bounds, 0 to 1"):
        lead([0, 100], [0], [[0]], 2, (0, 1))


# --- a trial in parts ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Known(GeneratingEvaluator):
    """An evaluator of made-up scores: a model says what a sample scores."""

    task: ClassVar[str] = "known"
    answer_format: ClassVar[AnswerFormat] = AnswerFormat.FREE
    bounds: ClassVar[tuple[float, float] | None] = (0, 100)

    def requests(self, samples, protocol):
        return [Request((s.image,), "", s.id) for s in samples]

    def scorer(self, samples):
        return KnownScorer()


class KnownScorer(Scorer):
    def score(self, samples, outputs):
        values = [float(text) for text in outputs]
        predictions = [
            Prediction(s.id, s.image, "", text, "", v)
            for s, text, v in zip(samples, outputs, values, strict=True)
        ]
        return Evaluation(
            "x", {"x": Metric(np.mean(values), len(values))}, {"x": values}, predictions
        )


class Talker(VisionLanguageModel):
    """Answers with made-up scores and records the requests of every call."""

    def __init__(self, score_of):
        self.score_of, self.calls = score_of, []

    def generate(self, requests, config, progress):
        self.calls.append([request.sample_id for request in requests])
        return [str(self.score_of[request.sample_id]) for request in requests]


SAMPLES = [
    Sample(str(k), f"picture {k // 2}", (FileImage(Path(f"{k // 2}.jpg")),)) for k in range(200)
]
GOOD = [100.0 * (k % 10 > 0) for k in range(200)]
RIVAL = Point("vit=4 llm=4", 4.0, 90.0, stored_bpw=4.5)
LLM2, LLM2_SIZE = BitAllocation.parse("vit=16,llm=2"), Size(10, 6.0, 6.5)


def pruned_trial(values, allocation=LLM2, size=LLM2_SIZE, points=(RIVAL,), kind=Known):
    model = Talker({s.id: v for s, v in zip(SAMPLES, values, strict=True)})
    pruner = Pruner(0, points, {"vit=4 llm=4": GOOD}.get)
    with Task(kind(), SAMPLES, SAMPLES) as task:
        return model, pruner.evaluate(task, model, None, allocation, size)


def test_a_dominated_trial_is_stopped_after_its_first_part_and_says_why():
    model, (evaluation, why) = pruned_trial([0.0] * 200)
    (call,) = model.calls
    assert len(call) == len(evaluation.predictions) == 32  # of 16 pictures
    assert [p.sample_id for p in evaluation.predictions] == call
    assert str(why).startswith(
        "stopped after 32 of 200 samples: vit=4 llm=4 is smaller and better"
    )
    assert 0 < why.at_least < why.better_by


def test_a_competitive_trial_generates_every_output_once_and_is_scored_on_all_samples():
    values = [100.0 * (k % 7 > 0) for k in range(200)]
    model, (evaluation, why) = pruned_trial(values)
    assert why is None
    assert len(model.calls) == 3
    assert sorted(int(name) for part in model.calls for name in part) == list(range(200))
    with Task(Known(), SAMPLES, SAMPLES) as task:
        assert evaluation == evaluate(task, model, None)


def test_a_part_has_whole_pictures_and_the_same_ones_for_a_seed():
    first, _ = pruned_trial([0.0] * 200)
    again, _ = pruned_trial([0.0] * 200)
    assert first.calls == again.calls
    assert shuffled_pictures(SAMPLES, 1) != shuffled_pictures(SAMPLES, 0)
    assert all(
        SAMPLES[a].image_id == SAMPLES[b].image_id for a, b in shuffled_pictures(SAMPLES, 0)
    )


@pytest.mark.parametrize(
    "facts",
    [
        {"allocation": BitAllocation.parse("vit=16,llm=16"), "size": Size(10, 16.0, 16.0)},
        {"points": ()},
        {"size": Size(10, 3.9, 4.6)},  # smaller than the rival
        {"size": Size(10, 4.1, 4.4)},  # as it is stored
    ],
)
def test_without_a_finished_rival_of_at_most_its_size_no_trial_is_pruned(facts):
    model, (evaluation, why) = pruned_trial([0.0] * 200, **facts)
    assert why is None
    assert len(evaluation.predictions) == 200
    assert len(model.calls) == len(rungs(100))  # in the same batches as all others


def test_a_trial_whose_answers_flip_is_stopped_by_one_whose_do_not():
    model = Talker({s.id: 50.0 for s in SAMPLES})
    answers = {s.id: "90.0" for s in SAMPLES}  # of the unquantized model
    rival = replace(RIVAL, score=95.0)
    agrees = [float(k % 20 > 0) for k in range(200)]
    pruner = Pruner(0, (rival,), {"vit=4 llm=4": agrees}.get, answers=answers)
    with Task(Known(), SAMPLES, SAMPLES) as task:
        evaluation, why = pruner.evaluate(task, model, None, LLM2, LLM2_SIZE)
        assert len(evaluation.predictions) == 32
        assert 0 < why.at_least <= 1
        model.score_of = {s.id: 90.0 for s in SAMPLES}
        assert pruner.evaluate(task, model, None, LLM2, LLM2_SIZE)[1] is None


class Pooled(Known):
    pooled: ClassVar[bool] = True


class Boundless(Known):
    bounds: ClassVar[tuple[float, float] | None] = None


@pytest.mark.parametrize("kind", [Pooled, Boundless])
def test_pooled_scores_are_not_pruned(kind):
    model, (evaluation, why) = pruned_trial([0.0] * 200, kind=kind)
    assert why is None
    assert model.calls == [[s.id for s in SAMPLES]]


def test_no_part_has_only_a_few_pictures():
    assert rungs(20) == [20]
    assert rungs(50) == [16, 50]
    assert rungs(1000) == [100, 300, 600, 1000]


# --- on a model ----------------------------------------------------------------------------------
def test_a_trial_in_rungs_has_the_outputs_and_scores_of_one_without(tmp_path):
    options = EvalOptions(model="embedded-llava", task="gqa", limit="60")
    prepared = prepare(options, {}, lambda parts: [])
    loaded = prepared.load()
    spec = TrialSpec(prepared.eval_spec, BitAllocation.parse("vit=4,llm=3"))
    artifacts = prepared.artifacts(Store(tmp_path), quiet=True)
    whole, parts = (
        run_trial(spec, loaded, artifacts, prepared.task, True, pruner)
        for pruner in (None, Pruner(0, (), {}.get))
    )
    assert parts.details == whole.details
    assert replace(parts.record, seconds={}) == replace(whole.record, seconds={})


def test_a_search_prunes_what_is_dominated_and_keeps_its_front(store_uri):
    command = (
        "search --model embedded-llava --task gqa --limit 60 --seed 3 --bits 2,4,16 --study pruned"
    )
    main([*command.split(), "--n-trials", "9"])
    client = MlflowClient(store_uri)
    experiment = client.get_experiment_by_name("mmq").experiment_id
    runs = client.search_runs([experiment], "tags.`mmq.kind` = 'trial'")
    assert len(runs) == 9
    pruned = [run for run in runs if run.data.tags.get("mmq.state") == "PRUNED"]
    assert "vit=2 llm=16" in [run.data.tags["mmq.allocation"] for run in pruned]
    records = Records(home() / "studies" / "pruned")
    for run in pruned:
        assert run.info.status == "KILLED"
        assert run.data.tags["mlflow.note.content"].startswith("stopped after ")
        assert "score" not in run.data.metrics
        assert run.data.metrics["partial/samples"] < 60
        name = run.data.tags["mmq.allocation"]
        assert records.get(name) is None
        record = records.get_pruned(name)
        assert record.score.value == pytest.approx(run.data.metrics["partial/score"], abs=1e-6)
    assert all(r.info.status == "FINISHED" for r in runs if r not in pruned)
    (parent,) = client.search_runs([experiment], "tags.`mmq.kind` = 'study'")
    table = json.loads(
        Path(client.download_artifacts(parent.info.run_id, "front.json")).read_text()
    )
    assert not {row[0] for row in table["data"]} & {r.data.tags["mmq.allocation"] for r in pruned}
