"""The best allocation of every size, if the losses of the parts add up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 2**16  # sizes that are distinguished; all are if sizes have a large common unit


@dataclass(frozen=True, slots=True)
class Solution:
    """One level per part, with their total size and loss."""

    size: int
    loss: float
    levels: tuple[int, ...]


def additive_front(
    sizes: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], bins: int = BINS
) -> list[Solution]:
    """All non-dominated choices of one level per part, the smallest first.

    sizes, losses: of every part (outer) at every level (inner); both add up. Solved by dynamic
    programming over the size (the multiple-choice knapsack of Kellerer, Pferschy and Pisinger
    2004, ch. 11). Exact if the sizes are multiples of a common unit that fits into their range at
    most `bins` times. Otherwise sizes are rounded to bins, and a solution can exceed the smallest
    one of the same loss by as many bins as there are parts.
    """
    least = [min(row) for row in sizes]
    above = [[size - low for size in row] for row, low in zip(sizes, least, strict=True)]
    unit = math.gcd(*(size for row in above for size in row)) or 1
    span = sum(max(row) for row in above)
    unit = max(unit, -(-span // bins))
    steps = [[round(size / unit) for size in row] for row in above]
    best = np.full(sum(max(row) for row in steps) + 1, np.inf)  # lowest loss at exactly this size
    best[0] = 0.0
    choices = np.zeros((len(sizes), len(best)), dtype=np.int16)
    for part, (row, row_losses) in enumerate(zip(steps, losses, strict=True)):
        totals = np.full((len(row), len(best)), np.inf)
        for level, (step, loss) in enumerate(zip(row, row_losses, strict=True)):
            totals[level, step:] = best[: len(best) - step] + loss
        choices[part] = totals.argmin(0)
        best = totals.min(0)
    earlier = np.minimum.accumulate(np.concatenate([[np.inf], best[:-1]]))
    solutions = []
    for place in np.flatnonzero(best < earlier):
        levels = _levels(choices, steps, int(place))
        size = sum(row[level] for row, level in zip(sizes, levels, strict=True))
        solutions.append(Solution(size, float(best[place]), levels))
    return _front(solutions)


def _levels(choices: np.ndarray, steps: Sequence[Sequence[int]], place: int) -> tuple[int, ...]:
    """The levels that led to a size, from the last part back to the first."""
    levels = []
    for part in reversed(range(len(steps))):
        level = int(choices[part, place])
        levels.append(level)
        place -= steps[part][level]
    return tuple(reversed(levels))


def _front(solutions: Sequence[Solution]) -> list[Solution]:
    """The non-dominated ones; rounding can have changed the order of sizes."""
    front: list[Solution] = []
    for solution in sorted(solutions, key=lambda s: (s.size, s.loss)):
        if not front or solution.loss < front[-1].loss:
            front.append(solution)
    return front
