"""Several tasks with one allocation: a search checked against the grid, and its records."""

import re

import pytest
from mlflow import MlflowClient
from mmq_search.api import search

import mmq
from mmq.cli import main
from mmq.config import EvalOptions
from mmq.prepare import prepare
from mmq.studies import joint_session
from mmq.studies.joint_tasks import prepare_joint

TINY = {"model": "embedded-llava", "quantizer": "rtn", "bits": "2,16", "seed": 17}
LIMITS = {"vqa": 24, "gqa": 16}
ALLOCATIONS = [f"vit={vit} llm={llm}" for vit in (2, 16) for llm in (2, 16)]


@pytest.fixture
def asked(monkeypatch):
    """The task and the allocation of every evaluation of a task."""
    evaluations, real = [], joint_session.evaluate_quantized

    def evaluate(spec, *rest):
        evaluations.append((spec.eval_spec.evaluator, str(spec.allocation)))
        return real(spec, *rest)

    monkeypatch.setattr(joint_session, "evaluate_quantized", evaluate)
    return evaluations


def nothing(parts):
    return []


@pytest.mark.usefixtures("store_uri")
def test_a_joint_search_finds_the_front_of_the_grid_and_loses_nothing_when_interrupted(
    asked, evaluated, monkeypatch
):
    def run(combine="worst"):
        return search(
            task=["vqa", "gqa"], limit=LIMITS, n_trials=4, max_drop=0.3, prune=False,
            combine=combine, **TINY,
        )  # fmt: skip

    real = joint_session.evaluate_quantized

    def interrupted(spec, *rest):
        if (spec.eval_spec.evaluator, str(spec.allocation)) == ("gqa", "vit=2 llm=2"):
            raise KeyboardInterrupt
        return real(spec, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(joint_session, "evaluate_quantized", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert ("vqa", "vit=2 llm=2") in asked  # it ended before the interrupt
    study = run()
    assert sorted(asked) == sorted((task, each) for task in LIMITS for each in ALLOCATIONS)

    grids = {  # every allocation on each task alone, from the records of the joint search
        task: {str(r.allocation): r for r in mmq.grid(task=task, limit=n, **TINY).records()}
        for task, n in LIMITS.items()
    }
    assert evaluated == []
    shares = {
        name: {
            task: 100 * own[name].score.value / own["vit=16 llm=16"].score.value
            for task, own in grids.items()
        }
        for name in ALLOCATIONS
    }
    worst = {name: min(own.values()) for name, own in shares.items()}
    assert {p.allocation: p.score for p in study.points} == pytest.approx(worst)
    for point in study.points:
        assert {task.label: task.share for task in point.tasks} == shares[point.allocation]
        assert shares[point.allocation][point.binding] == worst[point.allocation]
    sizes = {name: r.size.stored_bpw for name, r in grids["vqa"].items()}
    kept = [name for name in ALLOCATIONS if worst[name] >= 70 and name != "vit=16 llm=16"]
    smallest = min(kept, key=lambda name: sizes[name])
    assert study.selections()[0].point.allocation == smallest
    assert 0 < len(kept) < 3

    mean = {name: sum(own.values()) / 2 for name, own in shares.items()}
    of_mean = run("mean")
    assert {p.allocation: p.score for p in of_mean.points} == pytest.approx(mean)
    assert of_mean.selections()[0].point.allocation == smallest  # a bound is for every task
    assert len(asked) == 2 * len(ALLOCATIONS)  # all of them were recorded

    text = str(study)
    assert "binds" in text.splitlines()[0]
    assert "flips" in text.splitlines()[0]
    record = study.record("vit=2 llm=16")
    of_tasks = [grids[task]["vit=2 llm=16"].metrics["flips"].value for task in LIMITS]
    assert record.metrics["flips"].value == max(of_tasks) > 0
    client = MlflowClient()
    tasks = client.search_runs(
        [client.get_run(record.run_id).info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{record.run_id}'",
    )
    assert {run.data.tags["mmq.task"]: run.data.metrics["score"] for run in tasks} == {
        task: pytest.approx(grids[task]["vit=2 llm=16"].score.value) for task in LIMITS
    }


@pytest.mark.parametrize("quantizer", ["rtn", "gptq"])
def test_a_data_free_quantizer_shares_records_with_studies_of_one_task(quantizer):
    own = {"model": "embedded-llava", "quantizer": quantizer, "calibration_samples": 6}
    options = EvalOptions(task="vqa,gqa", limit="vqa=4,gqa=6", **own)
    joint = prepare_joint(options, {}, "worst", nothing)
    alone = prepare(EvalOptions(task="gqa", limit="6", **own), {}, nothing)
    same = joint.tasks["gqa"].eval_spec.key == alone.eval_spec.key
    assert same == (quantizer == "rtn")
    if quantizer == "gptq":  # blocks are calibrated on three pairs of each task
        specs = [task.eval_spec for task in joint.tasks.values()]
        assert {spec.calibration_samples for spec in specs} == {6}
        assert len({spec.calibration for spec in specs}) == 1
        assert len(joint.pairs().pairs) == 6


def test_options_of_one_evaluator_are_those_of_a_task():
    options = EvalOptions(task="vqa,gqa", model="embedded-llava", limit="4")
    joint = prepare_joint(options, {"vqa.num-beams": "3", "max-new-tokens": "5"}, "worst", nothing)
    got = {
        label: [task.eval_spec.evaluator_options[name] for name in ("num_beams", "max_new_tokens")]
        for label, task in joint.tasks.items()
    }
    assert got == {"vqa": [3, 5], "gqa": [1, 5]}
    assert joint.eval_spec.evaluator_options["vqa.num_beams"] == 3


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["grid", "--task", "vqa,gqa"], "scores one task"),
        (["search", "--task", "vqa,gqa", "--limit", "1,2,3"], "3 values for 2 tasks"),
        (["search", "--task", "vqa,gqa", "--min-score", "80"], "different units"),
        (["search", "--task", "vqa,gqa", "--max-drop", "0.5"], "different units"),
        (["search", "--task", "vqa,gqa", "--combine", "wrost"], "Did you mean 'worst'"),
        (["search", "--task", "vqa,gqa", "--objective", "flips"], "Search one of them"),
        (["search", "--objective", "flips", "--max-drop", "1%"], "bound the flips"),
        (["search", "--max-flips", "2"], "2' is not a percentage"),
    ],
)
def test_what_several_tasks_cannot_do_is_refused(command, problem, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--model", "embedded-llava"])
    assert re.search(problem, capsys.readouterr().err)
