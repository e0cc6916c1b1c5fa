"""Racing: a trial is evaluated in parts, and stopped once a finished one dominates it for sure."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.betting_test import lead
from mmq.analysis.fronts import Point
from mmq.contracts import Evaluation, Sample
from mmq.contracts.evaluator import Evaluator, Progress
from mmq.evaluation.generating import InParts, answers_of
from mmq.models.size import Size
from mmq.record import Pruned

if TYPE_CHECKING:
    from mmq.models.loading import LoadedModel

RUNGS = (0.1, 0.3, 0.6)  # shares of the pictures after which a trial may be stopped
FEWEST = 16  # pictures in a part: fewer cost a batch and tell next to nothing


@dataclass(frozen=True, slots=True)
class Pruner:
    """The finished trials that a trial has to hold its own against, with their samples' scores."""

    seed: int
    points: Sequence[Point]
    per_sample: Callable[[str], Sequence[float] | None]

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
        evaluator: Evaluator,
        model: "LoadedModel",
        samples: Sequence[Any],
        progress: Progress,
        allocation: BitAllocation,
        size: Size,
    ) -> tuple[Evaluation, Pruned | None]:
        """The evaluation of all samples, or of a part of them and why it ends there.

        A trial without a rival goes through the same parts: all of a study are then asked in the
        same batches and share cached features.
        """
        if not isinstance(evaluator, InParts) or (bounds := bounds_of(evaluator)) is None:
            return evaluator.evaluate(model, samples, progress), None
        rival = self.rival(allocation, size)
        standard = None if rival is None else self.per_sample(rival.allocation)
        pictures = drawn(samples, self.seed)
        said: dict[int, str] = {}
        worth: dict[int, float] = {}
        start = 0
        for end in looks(len(pictures)):
            part = sorted(k for picture in pictures[start:end] for k in picture)
            asked = [samples[k] for k in part]
            said |= zip(part, answers_of(evaluator, model, asked, progress), strict=True)
            start = end
            if rival is None or standard is None or end == len(pictures):
                continue
            worth |= zip(part, evaluator.values(asked, [said[k] for k in part]), strict=True)
            seen = pictures[:end]
            found = lead(
                standard, [worth[k] for picture in seen for k in picture], seen,
                len(pictures), bounds,
            )  # fmt: skip
            if found.at_least > 0:
                why = Pruned(
                    len(said), len(samples), rival.allocation, rival.bpw < size.bpw,
                    found.seen, found.at_least,
                )  # fmt: skip
                return _score(evaluator, samples, said), why
        return _score(evaluator, samples, said), None


def bounds_of(evaluator: InParts) -> tuple[float, float] | None:
    """Between which values a sample's score lies; None where a part says nothing of the whole."""
    own = type(evaluator).evaluate is not InParts.evaluate  # may do more than predict and score
    return None if evaluator.pooled or own else evaluator.bounds


def looks(pictures: int) -> list[int]:
    """After how many pictures a trial is looked at; the last time all of them."""
    ends = [0]
    for share in RUNGS:
        end = max(math.ceil(share * pictures), FEWEST)
        if end - ends[-1] >= FEWEST and pictures - end >= FEWEST:
            ends.append(end)
    return [*ends[1:], pictures]


def drawn(samples: Sequence[Sample], seed: int) -> list[list[int]]:
    """The pictures in a seeded random order, each as the positions of its samples."""
    found: dict[str, list[int]] = {}
    for k, sample in enumerate(samples):
        found.setdefault(sample.image_id, []).append(k)
    pictures = list(found.values())
    random.Random(f"race {seed}").shuffle(pictures)
    return pictures


def _score(evaluator: InParts, samples: Sequence[Any], said: dict[int, str]) -> Evaluation:
    """What was said so far, scored in the samples' order."""
    order = sorted(said)
    return evaluator.score([samples[k] for k in order], [said[k] for k in order])
