"""Pruning: evaluate a trial in parts, and stop once a finished trial dominates it."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.betting_test import Lead, lead
from mmq.analysis.fronts import Point
from mmq.contracts import Evaluation, Sample
from mmq.contracts.evaluator import GeneratingEvaluator, Scorer
from mmq.contracts.vlm import ImageTextMatcher, Progress, VisionLanguageModel
from mmq.evaluation.flips import Answers, agreement
from mmq.evaluation.generating import Task, evaluate, generate_outputs
from mmq.evaluation.saved_outputs import SavedOutputs
from mmq.models.size import Size
from mmq.record import Pruned

RUNGS = (0.1, 0.3, 0.6)  # shares of the pictures after which a trial may be pruned
FEWEST = 16  # minimum pictures per part: fewer cost a batch and show almost nothing


@dataclass(frozen=True, slots=True)
class Pruner:
    """The finished trials that may prune a trial, with the scores of their samples.

    answers: the unquantized model's, if trials are compared by their agreement with it.
    """

    seed: int
    points: Sequence[Point]
    per_sample: Callable[[str], Sequence[float] | None]
    answers: Answers | None = field(default=None, kw_only=True)

    def rival(self, allocation: BitAllocation, size: Size) -> Point | None:
        """The best finished trial that is not larger; None for the unquantized model."""
        if Point(str(allocation), size.bpw, 0).is_unquantized:
            return None
        fitting = [
            p
            for p in self.points
            if p.bpw <= size.bpw and (p.stored_bpw or 0) <= (size.stored_bpw or math.inf)
        ]
        return max(fitting, key=lambda p: (p.score, -p.bpw), default=None)

    def evaluate(
        self,
        task: Task,
        model: VisionLanguageModel | ImageTextMatcher,
        progress: Progress,
        allocation: BitAllocation,
        size: Size,
        saved: SavedOutputs | None = None,
    ) -> tuple[Evaluation, Pruned | None]:
        """The evaluation of all samples, or of a part of them and why it stopped."""
        rival = self.rival(allocation, size)
        standard = None if rival is None else self.per_sample(rival.allocation)
        if rival is None or standard is None:
            return evaluate_in_parts(task, model, progress, self.seed, saved)

        def stop(part: Part) -> Pruned | None:
            margin = part.lead(standard)
            if margin.at_least <= 0:
                return None
            return Pruned(
                part.samples, part.of, rival.allocation, rival.bpw < size.bpw,
                margin.observed, margin.at_least,
            )  # fmt: skip

        return evaluate_in_parts(task, model, progress, self.seed, saved, stop, self.answers)


class TaskPruner(Protocol):
    """Evaluates a trial on a task, and may stop it early."""

    def evaluate(
        self,
        task: Task,
        model: VisionLanguageModel | ImageTextMatcher,
        progress: Progress,
        allocation: BitAllocation,
        size: Size,
        saved: SavedOutputs | None = None,
    ) -> tuple[Evaluation, Pruned | None]:
        """The evaluation of all samples, or of a part of them and why it stopped."""


@dataclass(frozen=True, slots=True)
class Part:
    """The scores of a trial on some of the pictures.

    values: by sample, of `pictures`, in the order of drawing. units: how many pictures there are.
    """

    values: Mapping[int, float]
    pictures: Sequence[Sequence[int]]
    units: int
    of: int
    bounds: tuple[float, float]

    @property
    def samples(self) -> int:
        """How many samples are scored."""
        return len(self.values)

    def lead(self, rival: Sequence[float]) -> Lead:
        """How much better a rival is, from its score on every sample."""
        values = [self.values[k] for picture in self.pictures for k in picture]
        return lead(rival, values, self.pictures, self.units, self.bounds)


def evaluate_in_parts(
    task: Task,
    model: VisionLanguageModel | ImageTextMatcher,
    progress: Progress,
    seed: int,
    saved: SavedOutputs | None = None,
    stop: Callable[[Part], Pruned | None] | None = None,
    answers: Answers | None = None,
) -> tuple[Evaluation, Pruned | None]:
    """Evaluate a task in rungs; `stop` says after each but the last whether to prune, and why.

    All trials of a study go through the same rungs, so that they are evaluated in the same
    batches and share cached features. answers: the unquantized model's; parts then have the
    agreement with them in place of scores.
    """
    if not can_prune(task):
        return evaluate(task, model, progress, saved), None
    evaluator = cast(GeneratingEvaluator, task.evaluator)
    assert evaluator.bounds is not None
    vlm, scorer, samples = cast(VisionLanguageModel, model), task.scorer, task.samples
    pictures = shuffled_pictures(samples, seed)
    outputs: dict[int, str] = {}
    values: dict[int, float] = {}
    start = 0
    for end in rungs(len(pictures)):
        positions = sorted(k for picture in pictures[start:end] for k in picture)
        of_part = [samples[k] for k in positions]
        generated = generate_outputs(evaluator, vlm, of_part, progress, saved)
        outputs |= zip(positions, generated, strict=True)
        start = end
        if stop is None or end == len(pictures):
            continue
        if answers is None:
            own, bounds = scorer.values(of_part, generated), evaluator.bounds
        else:
            own, bounds = agreement(scorer.score(of_part, generated), answers), (0.0, 1.0)
        values |= zip(positions, own, strict=True)
        part = Part(values, pictures[:end], len(pictures), len(samples), bounds)
        if (why := stop(part)) is not None:
            return _score(scorer, samples, outputs), why
    return _score(scorer, samples, outputs), None


def can_prune(task: Task) -> bool:
    """Whether a part of the samples is informative about all of them."""
    evaluator = task.evaluator
    return (
        isinstance(evaluator, GeneratingEvaluator)
        and not evaluator.pooled
        and evaluator.bounds is not None
    )


def rungs(pictures: int) -> list[int]:
    """After how many pictures a trial may be pruned; the last number is all of them."""
    ends = [0]
    for share in RUNGS:
        end = max(math.ceil(share * pictures), FEWEST)
        if end - ends[-1] >= FEWEST and pictures - end >= FEWEST:
            ends.append(end)
    return [*ends[1:], pictures]


def shuffled_pictures(samples: Sequence[Sample], seed: int) -> list[list[int]]:
    """The pictures in a seeded random order, each as the positions of its samples."""
    positions: dict[str, list[int]] = {}
    for k, sample in enumerate(samples):
        positions.setdefault(sample.image_id, []).append(k)
    pictures = list(positions.values())
    random.Random(f"race {seed}").shuffle(pictures)
    return pictures


def _score(scorer: Scorer, samples: Sequence[Any], outputs: dict[int, str]) -> Evaluation:
    """The outputs so far, scored in the samples' order."""
    order = sorted(outputs)
    return scorer.score([samples[k] for k in order], [outputs[k] for k in order])
