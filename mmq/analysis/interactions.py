"""Measured interactions: the joint loss of two parts minus the sum of their single losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mmq.analysis.table import Table, reference_row, resampled_scores
from mmq.evaluation.stats import RESAMPLES

NOTHING = 1e-9  # an excess below this is rounding


@dataclass(frozen=True, slots=True)
class PairLoss:
    """Losses of two parts at these bits, all others at their widest.

    excess: joint - first_loss - second_loss, 0 if losses are additive, with its 95% interval over
    pictures if there are samples. can_add: whether the single losses together do not exceed the
    reference's score; otherwise the joint loss cannot reach their sum.
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
    """A pair of parts over all n measured pairs of widths.

    n_can_add, mean_can_add: over those whose losses can add up (`PairLoss`). most: the one
    furthest from 0, of those if there are any. above, below: how many have an interval above or
    below 0; None without samples.
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
    """Every pair of parts at all widths that the table has both jointly and singly.

    Only configurations count in which exactly these two parts differ from the reference (every
    part at its widest). Empty if the reference was not measured.
    """
    start = reference_row(table)
    if start is None:
        return []
    rows = _places(table, start)
    intervals = _intervals(table, start, rows, seed)
    pairs = []
    for ((i, j), joint, first, second), (low, high) in zip(rows, intervals, strict=True):
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
    places = []
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
                places.append(((i, j), int(joint), first, second))
    return places


def _intervals(
    table: Table, start: int, rows: Sequence[tuple[object, int, int, int]], seed: int
) -> list[tuple[float | None, float | None]]:
    """95% intervals of the excess losses over pictures drawn with replacement."""
    if not table.has_samples or not rows:
        return [(None, None)] * len(rows)
    joint, first, second = (np.array([row[k] for row in rows], int) for k in (1, 2, 3))
    # joint - first - second as losses against the reference
    if table.tasks:
        rng = np.random.default_rng(seed)
        scores = np.stack([resampled_scores(table, rng) for _ in range(RESAMPLES)])
        excess = scores[:, first] + scores[:, second] - scores[:, joint] - scores[:, [start]]
        return _ends(excess)
    assert table.samples is not None
    assert table.pictures is not None
    values = table.samples[first] + table.samples[second] - table.samples[joint]
    values = values - table.samples[start]
    pictures = int(table.pictures.max()) + 1
    draws = np.random.default_rng(seed).integers(0, pictures, (RESAMPLES, pictures))
    counts = np.stack([np.bincount(row, minlength=pictures) for row in draws])
    weights = counts[:, table.pictures].astype(float)
    return _ends((weights @ values.T) / weights.sum(axis=1, keepdims=True))


def _ends(draws: np.ndarray) -> list[tuple[float | None, float | None]]:
    """The 95% interval of each column."""
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def summarize(losses: Sequence[PairLoss]) -> list[PairSummary]:
    """One summary per pair of parts, the least additive pair first."""
    summaries = []
    for first, second in dict.fromkeys((loss.first, loss.second) for loss in losses):
        some = [loss for loss in losses if (loss.first, loss.second) == (first, second)]
        excess = np.array([loss.excess for loss in some])
        above = below = None
        if all(loss.low is not None and loss.high is not None for loss in some):
            above = sum((loss.low or 0) > NOTHING for loss in some)
            below = sum((loss.high or 0) < -NOTHING for loss in some)
        can = [loss for loss in some if loss.can_add]
        most = max(can or some, key=lambda loss: abs(loss.excess))
        mean_can = float(np.mean([loss.excess for loss in can])) if can else None
        mean = float(excess.mean())
        summaries.append(
            PairSummary(first, second, len(some), mean, len(can), mean_can, most, above, below)
        )
    return sorted(summaries, key=lambda summary: -abs(summary.most.excess))
