"""Several tasks as one score: the share of the unquantized score that each of them keeps.

A share is a percentage of the unquantized model's score on the same samples, so that tasks with
different metrics can be compared. The score of an allocation is the worst of its shares, or their
mean; the task with the worst share binds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mmq.analysis.evidence import PairedScores
from mmq.analysis.fronts import Point, TaskScore
from mmq.errors import one_of

Combine = Literal["worst", "mean"]
COMBINES: tuple[Combine, ...] = ("worst", "mean")
UNQUANTIZED_SHARE = 100.0  # percent
TaskSamples = Callable[[str], Mapping[str, Sequence[float]] | None]  # by allocation, then by task


def parse_combine(text: str) -> Combine:
    """The name of a way to combine shares; InputError if it is not valid."""
    return one_of("combine", text, COMBINES)


def share(score: float, unquantized: float) -> float:
    """A score as a percentage of the unquantized score.

    For a score below 0, where a loss is a larger magnitude, twice the whole minus the ratio.

    >>> share(45, 50), share(-55, -50)
    (90.0, 90.0)
    """
    if unquantized == 0:
        return math.nan
    ratio = UNQUANTIZED_SHARE * score / unquantized
    return ratio if unquantized > 0 else 2 * UNQUANTIZED_SHARE - ratio


def combined(shares: Sequence[float], combine: Combine) -> float:
    """One score from the shares of all tasks.

    >>> combined([90.0, 100.0], "worst"), combined([90.0, 100.0], "mean")
    (90.0, 95.0)
    """
    return min(shares) if combine == "worst" else sum(shares) / len(shares)


@dataclass(frozen=True, slots=True)
class JointSamples:
    """The scores per sample of a study of several tasks.

    clusters: the picture of every sample, by task. per_sample: an allocation's scores of every
    sample, by task; None if unknown.
    """

    clusters: Mapping[str, Sequence[str]]
    per_sample: TaskSamples
    combine: Combine


@dataclass(frozen=True, slots=True, eq=False)
class JointScores(PairedScores):
    """Paired scores of several tasks: in each resample, every task's pictures are drawn anew.

    tasks: the paired scores of each. binding: the task with the worst share, by allocation.
    """

    unquantized: str = ""
    tasks: Mapping[str, PairedScores] = field(default_factory=dict)
    binding: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_tasks(
        cls, points: Sequence[Point], unquantized: str, samples: JointSamples
    ) -> "JointScores":
        """unquantized: the allocation that shares refer to; one of the points'.

        Allocations without a value for every sample of every task are omitted.
        """
        scores = {p.allocation: {task.label: task.score for task in p.tasks} for p in points}
        by_allocation = {name: samples.per_sample(name) for name in scores}
        tasks: dict[str, PairedScores] = {}
        for seed, (label, clusters) in enumerate(samples.clusters.items()):
            own = [
                Point(name, 0, score[label]) for name, score in scores.items() if label in score
            ]

            def values(name: str, label: str = label) -> Sequence[float] | None:
                return (by_allocation[name] or {}).get(label)

            tasks[label] = PairedScores.of(own, values, clusters, seed)
        sizes = np.concatenate([task.sizes for task in tasks.values()])
        complete = [
            name
            for name in scores
            if all(name in task.totals and unquantized in task.totals for task in tasks.values())
        ]
        totals = {
            name: np.concatenate([task.totals[name] for task in tasks.values()])
            for name in complete
        }
        binding = {p.allocation: p.binding for p in points if p.tasks}
        joint = cls(sizes, totals, {}, unquantized, tasks, binding)
        resampled = {name: joint.score(name, samples.combine) for name in complete}
        return cls(sizes, totals, resampled, unquantized, tasks, binding)

    def shares(self, allocation: str) -> dict[str, np.ndarray]:
        """An allocation's shares by task and resample."""
        return {
            label: shares_of(task.resampled[allocation], task.resampled[self.unquantized])
            for label, task in self.tasks.items()
        }

    def score(self, allocation: str, combine: Combine) -> np.ndarray:
        """An allocation's combined score by resample."""
        shares = np.stack(list(self.shares(allocation).values()))
        result: np.ndarray = shares.min(axis=0) if combine == "worst" else shares.mean(axis=0)
        return result

    @property
    def fewest(self) -> int:
        """The pictures of the task that has the fewest."""
        return min(task.pictures for task in self.tasks.values())

    def lost(self, new: Point, old: Point) -> bool:
        """Whether any picture of any task scores less."""
        return any(task.lost(new, old) for task in self.tasks.values())

    def pair(self, new: Point, old: Point) -> tuple[np.ndarray, np.ndarray]:
        """Totals of the pictures of the task that binds."""
        task = self.tasks[self.binding[new.allocation]]
        return task.totals[new.allocation], task.totals[old.allocation]

    def bounded(self, point: Point) -> np.ndarray:
        """The values that a bound on the score compares, by resample: the worst share."""
        return self.score(point.allocation, "worst")


def shares_of(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Shares of resampled scores; where the unquantized model scores 0, the whole."""
    ratio = np.divide(
        UNQUANTIZED_SHARE * new, old, out=np.full_like(new, UNQUANTIZED_SHARE), where=old != 0
    )
    return np.asarray(np.where(old < 0, 2 * UNQUANTIZED_SHARE - ratio, ratio))


def task_scores(
    scores: Mapping[str, tuple[float, float | None, float | None]],
    unquantized: Mapping[str, float],
) -> tuple[TaskScore, ...]:
    """Each task's score with its interval, and the share of the unquantized score."""
    return tuple(
        TaskScore(label, value, low, high, share(value, unquantized[label]))
        for label, (value, low, high) in scores.items()
    )
