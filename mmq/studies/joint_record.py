"""The record of a trial of several tasks, made from the records of its tasks."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmq.analysis.fronts import Point
from mmq.analysis.joint import (
    UNQUANTIZED_SHARE,
    Combine,
    JointSamples,
    JointScores,
    combined,
    parse_combine,
    share,
    task_scores,
)
from mmq.contracts import Metric
from mmq.eval_spec import JointSpec
from mmq.evaluation.flips import FLIPS
from mmq.record import SHARE, Pruned, TrialRecord, TrialSpec

Pictures = Mapping[str, Sequence[str]]  # the picture of every sample, by task


def joint_record(
    spec: TrialSpec,
    tasks: Mapping[str, TrialRecord],
    unquantized: TrialRecord | None,
    pictures: Pictures,
    pruned: Pruned | None = None,
) -> TrialRecord:
    """One record of the tasks' records. unquantized: the joint record; None if this is its.

    A pruned trial may lack tasks, and has no intervals of its shares.
    """
    joint = spec.eval_spec
    assert isinstance(joint, JointSpec)
    combine = parse_combine(joint.combine)
    records = {label: tasks[label] for label in joint.tasks if label in tasks}
    first = next(iter(records.values()))
    metrics = {f"{label}/score": record.score for label, record in records.items()}
    metrics |= _shares(spec, records, unquantized, pictures, combine, pruned is None)
    metrics |= _flips(records)
    complete = {k: r.sample_scores for k, r in records.items() if r.pruned is None}
    return TrialRecord(
        spec=spec,
        size=first.size,
        primary=f"{SHARE}/{combine}",
        metrics=metrics,
        per_sample={k: tuple(values) for k, values in complete.items() if values is not None},
        layer_errors=first.layer_errors,
        seconds={"quantize": first.seconds.get("quantize", 0.0)}
        | {f"evaluate/{k}": r.seconds.get("evaluate", 0.0) for k, r in records.items()},
        undefined={
            f"{k}/{name}": why for k, r in records.items() for name, why in r.undefined.items()
        },
        pruned=pruned,
    )


def _shares(
    spec: TrialSpec,
    records: Mapping[str, TrialRecord],
    unquantized: TrialRecord | None,
    pictures: Pictures,
    combine: Combine,
    complete: bool,
) -> dict[str, Metric]:
    """Each task's share of the unquantized score in percent, the worst, and their mean."""
    names = list(records)
    counts = [record.score.n for record in records.values()]
    if unquantized is None:
        values = dict.fromkeys(names, UNQUANTIZED_SHARE)
    else:
        values = {
            name: share(record.score.value, unquantized.metrics[f"{name}/score"].value)
            for name, record in records.items()
        }
    intervals: dict[str, tuple[float, float]] = {}
    if unquantized is not None and complete:
        intervals = _intervals(spec, records, unquantized, pictures, combine)
    result = {
        f"{SHARE}/{name}": Metric(values[name], n, *intervals.get(name, ()))
        for name, n in zip(names, counts, strict=True)
    }
    for each in ("worst", "mean"):
        value = combined(list(values.values()), parse_combine(each))
        result[f"{SHARE}/{each}"] = Metric(value, sum(counts), *intervals.get(f"/{each}", ()))
    return result


def _intervals(
    spec: TrialSpec,
    records: Mapping[str, TrialRecord],
    unquantized: TrialRecord,
    pictures: Pictures,
    combine: Combine,
) -> dict[str, tuple[float, float]]:
    """95% intervals of the shares by task, and of /worst and /mean; none without samples."""
    own, reference = str(spec.allocation), str(unquantized.allocation)
    scores = {
        own: {name: r.score.value for name, r in records.items()},
        reference: {name: unquantized.metrics[f"{name}/score"].value for name in records},
    }
    samples = {
        own: {name: r.sample_scores or () for name, r in records.items()},
        reference: unquantized.per_sample,
    }
    points = [
        Point(
            name, 0, 0,
            tasks=task_scores({k: (v, None, None) for k, v in values.items()}, scores[reference]),
        )
        for name, values in scores.items()
    ]  # fmt: skip
    joint = JointScores.of_tasks(points, reference, JointSamples(pictures, samples.get, combine))
    if not joint.has(*points):
        return {}
    shares = joint.shares(own)
    spread = shares | {
        "/worst": np.min(list(shares.values()), axis=0),
        "/mean": np.mean(list(shares.values()), axis=0),
    }
    ends = {name: np.percentile(values, [2.5, 97.5]) for name, values in spread.items()}
    return {
        name: (float(low), float(high))
        for name, (low, high) in ends.items()
        if low < high  # equal resamples say nothing about other pictures
    }


def _flips(records: Mapping[str, TrialRecord]) -> dict[str, Metric]:
    """Each task's flips, and those of the task that has most of them."""
    flips = {name: r.metrics[FLIPS] for name, r in records.items() if FLIPS in r.metrics}
    result = {f"{name}/{FLIPS}": metric for name, metric in flips.items()}
    if len(flips) == len(records):
        result[FLIPS] = max(flips.values(), key=lambda metric: metric.value)
    return result
