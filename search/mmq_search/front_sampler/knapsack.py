"""The best allocation of every size, where the losses of the parts add up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 2**16  # sizes that are told apart; where all sizes have a large common unit, every one is


@dataclass(frozen=True, slots=True)
class Solution:
    """A choice of a level for every part, with what it weighs and what it loses."""

    size: int
    loss: float
    levels: tuple[int, ...]


def additive_front(
    sizes: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], bins: int = BINS
) -> list[Solution]:
    """All non-dominated choices of one level a part, the smallest first.

    sizes, losses: of every part (outer) at every level (inner); both add up. Solved by dynamic
    programming over the size (the multiple-choice knapsack of Kellerer, Pferschy and Pisinger
    2004, ch. 11). Exact where the sizes are multiples of a common unit that goes into their range
    at most `bins` times; beyond that sizes are rounded to bins, and a solution may be larger than
    the best one of its loss by as many bins as there are parts.
    """
    least = [min(row) for row in sizes]
    above = [[size - low for size in row] for row, low in zip(sizes, least, strict=True)]
    unit = math.gcd(*(size for row in above for size in row)) or 1
    span = sum(max(row) for row in above)
    unit = max(unit, -(-span // bins))
    steps = [[round(size / unit) for size in row] for row in above]
    best = np.full(sum(max(row) for row in steps) + 1, np.inf)  # least loss at exactly this size
    best[0] = 0.0
    chosen = np.zeros((len(sizes), len(best)), dtype=np.int16)
    for part, (row, lost) in enumerate(zip(steps, losses, strict=True)):
        totals = np.full((len(row), len(best)), np.inf)
        for level, (step, loss) in enumerate(zip(row, lost, strict=True)):
            totals[level, step:] = best[: len(best) - step] + loss
        chosen[part] = totals.argmin(0)
        best = totals.min(0)
    earlier = np.minimum.accumulate(np.concatenate([[np.inf], best[:-1]]))
    found = []
    for place in np.flatnonzero(best < earlier):
        levels = _levels(chosen, steps, int(place))
        size = sum(row[level] for row, level in zip(sizes, levels, strict=True))
        found.append(Solution(size, float(best[place]), levels))
    return _front(found)


def _levels(chosen: np.ndarray, steps: Sequence[Sequence[int]], place: int) -> tuple[int, ...]:
    """The levels that led to a size, from the last part back to the first."""
    levels = []
    for part in reversed(range(len(steps))):
        level = int(chosen[part, place])
        levels.append(level)
        place -= steps[part][level]
    return tuple(reversed(levels))


def _front(solutions: Sequence[Solution]) -> list[Solution]:
    """Those that nothing smaller or equal undercuts: rounded sizes may have changed places."""
    front: list[Solution] = []
    for each in sorted(solutions, key=lambda s: (s.size, s.loss)):
        if not front or each.loss < front[-1].loss:
            front.append(each)
    return front
