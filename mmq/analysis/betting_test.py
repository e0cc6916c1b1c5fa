"""When a trial is dominated beyond doubt by what a part of its samples says.

The rival is smaller or as small and has its scores on all samples; the candidate has them on the
units (pictures with all their samples) drawn so far, without replacement. What is tested is that
over all samples the candidate scores at least as well as the rival.

The test bets against that (Waudby-Smith and Ramdas 2023, section 5). For each unit drawn, take
y = sum of (high - candidate) + beta (rival - low) over its samples: never negative, and its sum
over all units is known if both score the same. Starting from 1, a capital that is multiplied by
1 - f + f y / E[y | drawn so far] can then not grow in expectation, for any stake f in (0, 1] and
any beta, nor can the mean of several such capitals. By Ville's inequality it ever reaches 1/error
with probability `error` at most: whatever the number of units, of looks, and the distribution
between the bounds. With beta 1 the bet is on paired differences (what makes a sample hard cancels
out), with beta 0 on the candidate's failures alone: where the rival hardly fails, that is quicker.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ERROR = 1e-6  # of one comparison: a study of 1000 trials stops a wrong one with 0.1% at most
STAKES = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95])
BETAS = np.array([0.0, 1.0])
HALVINGS = 40  # of the interval that holds the bound


@dataclass(frozen=True, slots=True)
class Lead:
    """How much better a rival is: on the samples seen, and at least on all, beyond doubt.

    `at_least` is above 0 where the candidate is dominated, 0 where that is not certain.
    """

    seen: float
    at_least: float


def lead(
    rival: Sequence[float],
    candidate: Sequence[float],
    drawn: Sequence[Sequence[int]],
    units: int,
    bounds: tuple[float, float],
) -> Lead:
    """The rival's lead over a candidate that was scored on some units of the samples.

    rival: its score of every sample; candidate: its scores of the samples drawn, unit after unit;
    drawn: the samples of each unit drawn, in the order of drawing; units: how many there are;
    bounds: between which a sample's score lies.
    """
    everything = np.asarray(rival, dtype=float)
    order = np.concatenate([np.asarray(unit) for unit in drawn])
    old, new = everything[order], np.asarray(candidate, dtype=float)
    low, high = bounds
    if min(everything.min(), new.min()) < low or max(everything.max(), new.max()) > high:
        raise ValueError(f"scores: some lie outside their bounds, {low:g} to {high:g}")
    starts = np.cumsum([0, *(len(unit) for unit in drawn)])[:-1]
    gains = (high - new)[:, None] + BETAS * (old - low)[:, None]  # (samples drawn, betas)
    gains = np.add.reduceat(gains, starts)  # (units drawn, betas)
    equal = (high - everything).sum() + BETAS * (everything - low).sum()  # if both score the same

    def certain(difference: float) -> bool:
        """Whether a lead of `difference` or less is out of the question."""
        total = equal + difference * len(everything)
        return bool(log_capital(gains, total, units).max() >= -math.log(ERROR))

    seen = float((old - new).mean())
    if not certain(0.0):
        return Lead(seen, 0.0)
    below, above = 0.0, high - low
    for _ in range(HALVINGS):
        middle = (below + above) / 2
        below, above = (middle, above) if certain(middle) else (below, middle)
    return Lead(seen, below)


def log_capital(gains: np.ndarray, total: np.ndarray, units: int) -> np.ndarray:
    """The capital after each unit drawn, as logarithm.

    gains: (units drawn, betas); total: of all units, (betas).
    """
    before = np.cumsum(gains, axis=0) - gains
    left = units - np.arange(len(gains))[:, None]
    expected = np.maximum((total - before) / left, 1e-12 * np.abs(total) + 1e-300)
    ratio = (gains / expected)[:, :, None]  # (units drawn, betas, 1)
    paths = np.log1p(STAKES * (ratio - 1)).cumsum(axis=0).reshape(len(gains), -1)
    return np.asarray(np.logaddexp.reduce(paths, axis=1) - np.log(paths.shape[1]))
