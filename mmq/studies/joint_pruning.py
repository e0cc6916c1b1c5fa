"""Pruning a trial of several tasks: the cheapest task that may decide is evaluated first.

A rival is certain to be better once even the largest shares that are still possible combine to
less than the rival's score: of the worst share, one task is enough to show that.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.fronts import Point
from mmq.analysis.joint import UNQUANTIZED_SHARE, Combine, TaskSamples, combined, share
from mmq.contracts import Evaluation
from mmq.contracts.vlm import ImageTextMatcher, Progress, VisionLanguageModel
from mmq.evaluation.generating import Task
from mmq.evaluation.saved_outputs import SavedOutputs
from mmq.models.size import Size
from mmq.record import Pruned, TrialRecord
from mmq.studies.pruning import Part, Pruner, evaluate_in_parts

MARGIN = 1e-9  # tolerance of a share, so that rounding errors do not prune


@dataclass(frozen=True, slots=True)
class JointPruner(Pruner):
    """The finished trials that may prune a trial of several tasks.

    task_samples: their scores of every sample. unquantized: the joint record that shares refer
    to, None before it is evaluated. highest: the highest possible score of a sample, by task;
    infinite where it is unknown.
    """

    task_samples: TaskSamples
    unquantized: TrialRecord | None
    highest: Mapping[str, float]
    combine: Combine

    def order(self, labels: Sequence[str]) -> list[str]:
        """The tasks by their seconds, divided by how often they bind in the finished trials."""
        binding = Counter(p.binding for p in self.points if not p.is_unquantized)
        seconds = {} if self.unquantized is None else self.unquantized.seconds

        def cost(label: str) -> float:
            return seconds.get(f"evaluate/{label}", 0.0) / (1 + binding[label])

        return sorted(labels, key=cost)

    def shares(self, records: Mapping[str, TrialRecord]) -> dict[str, float]:
        """The shares of tasks that are completely evaluated."""
        return {label: self.share(label, r.score.value) for label, r in records.items()}

    def share(self, label: str, score: float) -> float:
        """The share of the unquantized score of a task."""
        assert self.unquantized is not None
        return share(score, self.unquantized.metrics[f"{label}/score"].value)

    def decide(
        self,
        rival: Point | None,
        size: Size,
        most: Mapping[str, float],
        observed: Mapping[str, float],
        samples: int,
    ) -> Pruned | None:
        """Why a trial is dominated; None if it is not certain.

        most: the largest possible shares of tasks. observed: their shares so far. Both lack tasks
        that were not evaluated.
        """
        if rival is None or self.unquantized is None:
            return None
        labels = list(self.highest)
        at_least = rival.score - self._combined(labels, most)
        if not at_least > MARGIN:
            return None
        return Pruned(
            samples,
            self.unquantized.score.n,
            rival.allocation,
            rival.bpw < size.bpw,
            rival.score - self._combined(labels, observed),
            at_least,
        )

    def _combined(self, labels: Sequence[str], shares: Mapping[str, float]) -> float:
        return combined(
            [shares.get(label, self._ceiling(label)) for label in labels], self.combine
        )

    def _ceiling(self, label: str) -> float:
        """The largest possible share of a task that was not evaluated."""
        mean = self.unquantized_mean(label)
        if mean is None or mean <= 0:
            return math.inf
        return UNQUANTIZED_SHARE * self.highest[label] / mean

    def unquantized_mean(self, label: str) -> float | None:
        """The mean of the unquantized model's scores per sample of a task; None if unknown."""
        values = None if self.unquantized is None else self.unquantized.per_sample.get(label)
        return sum(values) / len(values) if values else None

    def for_task(
        self, label: str, finished: Mapping[str, TrialRecord], rival: Point | None
    ) -> "OneTaskPruner":
        """The pruner of one task's evaluation. finished: the tasks that are evaluated."""
        samples = sum(record.score.n for record in finished.values())
        shares = {} if rival is None else self.shares(finished)
        return OneTaskPruner(self, label, shares, samples, rival)


@dataclass(frozen=True, slots=True)
class OneTaskPruner:
    """Prunes a trial while one of its tasks is evaluated."""

    joint: JointPruner
    label: str
    finished: Mapping[str, float]
    samples: int
    rival: Point | None

    def evaluate(
        self,
        task: Task,
        model: VisionLanguageModel | ImageTextMatcher,
        progress: Progress,
        allocation: BitAllocation,
        size: Size,
        saved: SavedOutputs | None = None,
    ) -> tuple[Evaluation, Pruned | None]:
        """The evaluation of all samples of the task, or of a part and why it stopped."""
        stop = self._rule(size)
        return evaluate_in_parts(task, model, progress, self.joint.seed, saved, stop)

    def _rule(self, size: Size) -> Callable[[Part], Pruned | None] | None:
        """The check after each rung; None if no part of this task can decide."""
        joint, label, rival = self.joint, self.label, self.rival
        unquantized = joint.unquantized_mean(label)
        if rival is None or unquantized is None or unquantized <= 0:
            return None
        standard = (joint.task_samples(rival.allocation) or {}).get(label)
        if not standard:
            return None
        mean = sum(standard) / len(standard)

        def stop(part: Part) -> Pruned | None:
            margin = part.lead(standard)
            if margin.at_least <= 0:
                return None
            most, observed = (
                {**self.finished, label: UNQUANTIZED_SHARE * (mean - lead) / unquantized}
                for lead in (margin.at_least, margin.observed)
            )
            return joint.decide(rival, size, most, observed, self.samples + part.samples)

        return stop
