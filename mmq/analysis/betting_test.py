"""A sequential test of whether a trial is dominated, from the scores of some of its samples.

The rival is at most as large and has scores on all samples; the candidate has them on the units
(pictures with all their samples) drawn so far, without replacement. The null hypothesis is that
over all samples the candidate scores at least as well as the rival.

The test bets against it (Waudby-Smith and Ramdas 2023, section 5). For each unit drawn, take
y = sum of (high - candidate) + beta (rival - low) over its samples: never negative, and its sum
over all units is known if both score the same. Starting from 1, a capital that is multiplied by
1 - f + f y / E[y | drawn so far] can then not grow in expectation, for any stake f in (0, 1] and
any beta, nor can the mean of several such capitals. By Ville's inequality it ever reaches 1/error
with probability at most `error`, for any number of units and looks and any distribution within the
bounds. With beta 1 the bet is on paired differences, so the difficulty of a sample cancels out;
with beta 0 it is on the candidate's failures alone, which is quicker if the rival rarely fails.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ERROR = 1e-6  # per comparison: 1000 trials have a wrongly pruned one with probability 0.1% at most
STAKES = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95])
BETAS = np.array([0.0, 1.0])
HALVINGS = 40  # times that the interval of the bound is halved


@dataclass(frozen=True, slots=True)
class Lead:
    """How much better a rival is on the observed samples, and a lower bound over all samples.

    `at_least` is above 0 if the candidate is dominated, and 0 if that is not certain.
    """

    observed: float
    at_least: float


def lead(
    rival: Sequence[float],
    candidate: Sequence[float],
    sampled: Sequence[Sequence[int]],
    units: int,
    bounds: tuple[float, float],
) -> Lead:
    """The rival's lead over a candidate that was scored on some units of the samples.

    rival: its score on every sample. candidate: its scores on the sampled units, unit by unit.
    sampled: the samples of each unit, in the order of drawing. units: how many there are.
    bounds: of a sample's score.
    """
    everything = np.asarray(rival, dtype=float)
    order = np.concatenate([np.asarray(unit) for unit in sampled])
    old, new = everything[order], np.asarray(candidate, dtype=float)
    low, high = bounds
    if min(everything.min(), new.min()) < low or max(everything.max(), new.max()) > high:
        raise ValueError(f"scores: some lie outside their bounds, {low:g} to {high:g}")
    starts = np.cumsum([0, *(len(unit) for unit in sampled)])[:-1]
    gains = (high - new)[:, None] + BETAS * (old - low)[:, None]  # (samples drawn, betas)
    gains = np.add.reduceat(gains, starts)  # (units drawn, betas)
    equal = (high - everything).sum() + BETAS * (everything - low).sum()  # if both score the same

    def certain(difference: float) -> bool:
        """Whether a lead of `difference` or less is rejected."""
        total = equal + difference * len(everything)
        return bool(log_capital(gains, total, units).max() >= -math.log(ERROR))

    observed = float((old - new).mean())
    if not certain(0.0):
        return Lead(observed, 0.0)
    below, above = 0.0, high - low
    for _ in range(HALVINGS):
        middle = (below + above) / 2
        below, above = (middle, above) if certain(middle) else (below, middle)
    return Lead(observed, below)


def log_capital(gains: np.ndarray, total: np.ndarray, units: int) -> np.ndarray:
    """Logarithm of the capital after each unit.

    gains: (units drawn, betas). total: over all units, (betas).
    """
    before = np.cumsum(gains, axis=0) - gains
    left = units - np.arange(len(gains))[:, None]
    expected = np.maximum((total - before) / left, 1e-12 * np.abs(total) + 1e-300)
    ratio = (gains / expected)[:, :, None]  # (units drawn, betas, 1)
    paths = np.log1p(STAKES * (ratio - 1)).cumsum(axis=0).reshape(len(gains), -1)
    return np.asarray(np.logaddexp.reduce(paths, axis=1) - np.log(paths.shape[1]))
