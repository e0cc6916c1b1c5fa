"""The rule that prunes a trial of several tasks, on made-up scores."""

import pytest
from trial_records import record_of

from mmq.analysis.fronts import Point, TaskScore
from mmq.contracts import Metric
from mmq.models.size import Size
from mmq.studies.joint_pruning import JointPruner
from mmq.studies.pruning import Part

N = 200
SIZE = Size(10, 4.0, 4.5)
BASE = {"vqa": (1.0,) * N, "gqa": (0.5,) * N}
HIGHEST = {"vqa": 1.0, "gqa": 1.0}
RIVAL = {"vqa": (0.9,) * N, "gqa": (0.4,) * N}  # shares of 90 and 80: gqa binds


def task(label, share):
    return TaskScore(label, share, None, None, share)


def pruner(combine="worst", score=80.0):
    rival = Point("vit=3 llm=3", 3.0, score, tasks=(task("vqa", 90), task("gqa", 80)))
    unquantized = record_of(
        "vit=16 llm=16",
        name="kept/worst",
        metrics={
            "kept/worst": Metric(100, 2 * N),
            "vqa/score": Metric(100, N),
            "gqa/score": Metric(50, N),
        },
        per_sample=BASE,
        seconds={"evaluate/vqa": 10.0, "evaluate/gqa": 15.0},
    )
    return JointPruner(
        0, [rival], lambda _: None, lambda _: RIVAL, unquantized, HIGHEST, combine
    )  # fmt: skip


def stopped(pruner, label, value, finished=None):
    """Whether a task on which every sample scores this stops the trial half way."""
    (rival,) = pruner.points
    one = pruner.for_task(label, finished or {}, rival)
    pictures = [[k] for k in range(N // 2)]
    part = Part(dict.fromkeys(range(N // 2), value), pictures, N, N, (0.0, 1.0))
    return one._rule(SIZE)(part)


def test_a_task_that_cannot_reach_the_rivals_worst_share_decides_alone():
    why = stopped(pruner(), "vqa", 0.2)
    assert why.rival == "vit=3 llm=3"
    assert (why.samples, why.of) == (N // 2, 2 * N)
    assert 0 < why.at_least <= why.better_by


def test_a_task_is_not_enough_if_the_rival_loses_more_on_another():
    assert stopped(pruner(), "vqa", 0.85) is None  # a share of 85; the rival's worst is 80


def test_the_mean_of_shares_needs_more_than_one_bad_task():
    # 20% of vqa and, at most, 200% of gqa could still have a mean above the rival's
    assert stopped(pruner("mean", 85.0), "vqa", 0.2) is None
    done = {"gqa": record_of(score=35.0)}  # 70% of gqa
    assert stopped(pruner("mean", 85.0), "vqa", 0.2, done) is not None


def test_completed_tasks_can_prune_without_another_evaluation():
    joint = pruner()
    (rival,) = joint.points
    shares = joint.shares({"gqa": record_of(score=35.0)})
    assert shares == {"gqa": pytest.approx(70.0)}
    why = joint.decide(rival, SIZE, shares, shares, N)
    assert why.at_least == pytest.approx(10.0)
    better = {"gqa": 81.0}
    assert joint.decide(rival, SIZE, better, better, N) is None


def test_the_cheapest_task_is_first_unless_another_decides_more_often():
    # gqa takes 15 s to 10 s of vqa, but it binds in the one finished trial: 15 / 2 < 10
    assert pruner().order(["vqa", "gqa"]) == ["gqa", "vqa"]
