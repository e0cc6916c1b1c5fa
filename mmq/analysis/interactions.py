"""Measured interactions: what two parts lose together beyond what each loses alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mmq.analysis.table import Table, reference_row
from mmq.evaluation.stats import RESAMPLES

NOTHING = 1e-9  # an excess that is rounding


@dataclass(frozen=True, slots=True)
class PairLoss:
    """Losses of two parts at these bits, all others at their widest.

    excess: joint - first_loss - second_loss, so 0 where losses add up, with its 95% interval over
    pictures where samples are known. can_add: whether the single losses together are no more than
    the reference's score; where they are, the joint loss cannot reach their sum.
    """

    first: str
    second: str
    first_bits: int
    second_bits: int
    joint: float
    first_loss: float
    second_loss: float
    can_add: bool
    low: float | None = None
    high: float | None = None

    @property
    def excess(self) -> float:
        """Joint loss minus the sum of single losses."""
        return self.joint - self.first_loss - self.second_loss


@dataclass(frozen=True, slots=True)
class PairSummary:
    """A pair of parts over all n pairs of widths that were measured.

    n_can_add, mean_can_add: the same over those whose losses could add up (`PairLoss`), to which
    `most`, the one furthest from 0, belongs if there are any. above, below: how many have an
    interval beyond 0; None where samples are not known.
    """

    first: str
    second: str
    n: int
    mean: float
    n_can_add: int
    mean_can_add: float | None
    most: PairLoss
    above: int | None = None
    below: int | None = None


def pair_losses(table: Table, seed: int = 0) -> list[PairLoss]:
    """Every pair of parts at every widths that the table has jointly and singly.

    Only configurations count in which exactly these two parts differ from the reference (every
    part at its widest). Empty where the reference was not measured.
    """
    start = reference_row(table)
    if start is None:
        return []
    found = _places(table, start)
    intervals = _intervals(table, start, found, seed)
    pairs = []
    for ((i, j), joint, first, second), (low, high) in zip(found, intervals, strict=True):
        losses = [float(table.scores[start] - table.scores[row]) for row in (joint, first, second)]
        widths = [int(table.bits[joint, part]) for part in (i, j)]
        pairs.append(
            PairLoss(
                table.parts[i], table.parts[j], widths[0], widths[1],
                losses[0], losses[1], losses[2],
                bool(losses[1] + losses[2] <= table.scores[start]), low, high,
            )
        )  # fmt: skip
    return pairs


def _places(table: Table, start: int) -> list[tuple[tuple[int, int], int, int, int]]:
    """Parts and the rows of the joint configuration and of its two single ones."""
    widest = table.bits[start]
    rows = {tuple(bits): row for row, bits in enumerate(table.bits)}
    apart = table.bits != widest
    found = []
    for i, j in combinations(range(len(table.parts)), 2):
        only = apart[:, i] & apart[:, j] & (apart.sum(axis=1) == 2)
        for joint in np.flatnonzero(only):
            singles = []
            for part in (i, j):
                alone = widest.copy()
                alone[part] = table.bits[joint, part]
                singles.append(rows.get(tuple(alone)))
            first, second = singles
            if first is not None and second is not None:
                found.append(((i, j), int(joint), first, second))
    return found


def _intervals(
    table: Table, start: int, found: Sequence[tuple[object, int, int, int]], seed: int
) -> list[tuple[float | None, float | None]]:
    """95% intervals of the excess losses over pictures drawn with replacement."""
    if table.samples is None or table.pictures is None or not found:
        return [(None, None)] * len(found)
    joint, first, second = (np.array([each[k] for each in found], int) for k in (1, 2, 3))
    # joint - first - second as losses against the reference, sample by sample
    values = table.samples[first] + table.samples[second] - table.samples[joint]
    values = values - table.samples[start]
    pictures = int(table.pictures.max()) + 1
    drawn = np.random.default_rng(seed).integers(0, pictures, (RESAMPLES, pictures))
    counts = np.stack([np.bincount(each, minlength=pictures) for each in drawn])
    weights = counts[:, table.pictures].astype(float)
    means = (weights @ values.T) / weights.sum(axis=1, keepdims=True)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def summarize(losses: Sequence[PairLoss]) -> list[PairSummary]:
    """A line a pair of parts, the pair that is furthest from adding up first."""
    found = []
    for first, second in dict.fromkeys((each.first, each.second) for each in losses):
        some = [each for each in losses if (each.first, each.second) == (first, second)]
        excess = np.array([each.excess for each in some])
        above = below = None
        if all(each.low is not None and each.high is not None for each in some):
            above = sum((each.low or 0) > NOTHING for each in some)
            below = sum((each.high or 0) < -NOTHING for each in some)
        can = [each for each in some if each.can_add]
        most = max(can or some, key=lambda each: abs(each.excess))
        mean_can = float(np.mean([each.excess for each in can])) if can else None
        mean = float(excess.mean())
        found.append(
            PairSummary(first, second, len(some), mean, len(can), mean_can, most, above, below)
        )
    return sorted(found, key=lambda each: -abs(each.most.excess))
