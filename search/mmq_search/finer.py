"""Allocations over many parts that are worth a real evaluation, from each part's own losses.

What every part loses alone is measured cheaply (mmq.sensitivity). If losses add up, the best
allocation of every size is known exactly (mmq_search.additive). They add up only nearly: what was
really evaluated says by which factor each part's loss counts, and the front is solved again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmq.allocation import BitAllocation
from mmq.artifacts import Artifacts
from mmq.model import LoadedModel
from mmq.prepare import Prepared
from mmq.sensitivity import Profile, profile
from mmq.sizes import part_weights
from mmq_search.additive import Solution, additive_front
from mmq_search.space import Space

ROUND = 8  # solutions evaluated before the factors are fitted again
POWER = 0.75  # of a loss: scores fall ever more slowly with the divergence
NOISE = 0.02  # of a score, as a share of the best one
ALIKE = 1.0  # standard deviation of the logarithm of the parts' factors
STEPS = 50


@dataclass(frozen=True, slots=True)
class Additive:
    """The additive model of a space: score = top * exp(-sum of factor * loss ** POWER).

    weights: of each of the space's parts, how many its bits apply to.
    """

    space: Space
    weights: Sequence[int]
    profile: Profile

    @classmethod
    def measured(
        cls, space: Space, model: LoadedModel, prepared: Prepared, artifacts: Artifacts
    ) -> "Additive | None":
        """From a measured profile; None where components get a width each: those are few."""
        if space.grain == "component":
            return None
        found = profile(model, prepared, artifacts, space.parts, space.bits)
        return cls(space, part_weights(space.parts, model.components), found)

    def propose(self, scores: Mapping[BitAllocation, float], count: int) -> list[BitAllocation]:
        """Up to `count` allocations, none of them evaluated, that should lift the front most.

        scores: of what was evaluated; they say by what each part's loss counts.
        """
        known = {self._levels(allocation): score for allocation, score in scores.items()}
        losses = self._losses()
        losses *= factors(losses, known)[:, None]
        sizes = [[weights * bits for bits in self.space.bits] for weights in self.weights]
        front = additive_front(sizes, losses.tolist())
        chosen = promising(front, known, sizes, count)
        named = [dict(zip(self.space.parts, s.levels, strict=True)) for s in chosen]
        return [self.space.allocation(params) for params in named]

    def _levels(self, allocation: BitAllocation) -> tuple[int, ...]:
        params = self.space.params(allocation)
        return tuple(params[part] for part in self.space.parts)

    def _losses(self) -> np.ndarray:
        """(parts, levels), as the exponent takes them."""
        rows = [[self.profile[p][bits] for bits in self.space.bits] for p in self.space.parts]
        return np.asarray(rows) ** POWER


def factors(losses: np.ndarray, scores: Mapping[tuple[int, ...], float]) -> np.ndarray:
    """By what each part's losses (parts, levels) count for the logarithm of the score, (parts,).

    The most probable ones where scores have some noise and factors are about alike: a few
    evaluations cannot tell many parts apart. Found by Levenberg's damped Gauss-Newton steps in
    the factors' logarithms, so that none is negative.
    """
    top = max(scores.values(), default=0.0)
    if top <= 0:
        return np.ones(len(losses))
    kept = np.asarray(list(scores.values())) / top
    taken = np.take_along_axis(losses, np.asarray(list(scores)).T, axis=1).T  # (evaluated, parts)
    # a common factor, free, and each part's own beside it, held to 1
    shape = np.column_stack([np.ones(len(losses)), np.eye(len(losses))])  # (parts, unknowns)
    held = np.concatenate([[0.0], np.full(len(losses), 1 / ALIKE)])

    def missed(unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is left unexplained, and its slopes."""
        parts = taken * np.exp(shape @ unknowns)
        expected = np.exp(-parts.sum(1))
        left = np.concatenate([(expected - kept) / NOISE, held * unknowns])
        return left, np.concatenate([-(expected[:, None] * parts) @ shape / NOISE, np.diag(held)])

    starts = (np.concatenate([[c], np.zeros(len(losses))]) for c in np.linspace(-6, 6, 25))
    found = min(starts, key=lambda unknowns: float(np.sum(missed(unknowns)[0] ** 2)))
    damping = 1.0
    for _ in range(STEPS):
        left, slopes = missed(found)
        normal = slopes.T @ slopes
        step = np.linalg.solve(normal + damping * np.eye(len(found)), slopes.T @ left)
        better = np.sum(missed(found - step)[0] ** 2) < np.sum(left**2)
        found, damping = (found - step, damping / 3) if better else (found, damping * 4)
    return np.asarray(np.exp(shape @ found))


def promising(
    front: Sequence[Solution],
    known: Mapping[tuple[int, ...], float],
    sizes: Sequence[Sequence[int]],
    count: int,
) -> list[Solution]:
    """The solutions that should add most to the front's area, one after another, none of `known`.

    known: scores by levels, the largest of which no solution exceeds; sizes: of every part at
    every level. A solution's score is foretold by its loss, and taken for true while the next is
    chosen.
    """
    top = max(known.values(), default=1.0)
    points = [(_size(sizes, levels), score) for levels, score in known.items()]
    largest = _size(sizes, [-1] * len(sizes))
    free = [s for s in front if s.levels not in known]
    at = np.asarray([s.size for s in free], dtype=float)
    scores = top * np.exp([-s.loss for s in free])
    chosen: list[Solution] = []
    while len(chosen) < min(count, len(free)):
        gains = _gains(points, at, scores, largest)
        gains[[free.index(s) for s in chosen]] = -1.0
        best = int(gains.argmax())
        chosen.append(free[best])
        points.append((at[best], scores[best]))
    return chosen


def _size(sizes: Sequence[Sequence[int]], levels: Sequence[int]) -> int:
    return sum(row[level] for row, level in zip(sizes, levels, strict=True))


def _gains(
    points: Sequence[tuple[float, float]], sizes: np.ndarray, scores: np.ndarray, largest: float
) -> np.ndarray:
    """The area below the points' front, up to the largest size, that each candidate adds."""
    steps = sorted([(0.0, 0.0), *points])
    starts = np.asarray([size for size, _ in steps])
    heights = np.maximum.accumulate([score for _, score in steps])  # from each start on
    ends = np.append(starts[1:], largest)
    widths = np.clip(ends - np.maximum(starts, sizes[:, None]), 0, None)  # (candidates, steps)
    return np.asarray((widths * np.clip(scores[:, None] - heights, 0, None)).sum(1))
