"""Scores with intervals, by resampling the evaluation set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Metric:
    """A score over n samples with its 95% interval; None where there is no honest interval."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):  # numpy's numbers are no JSON
            number = getattr(self, name)
            object.__setattr__(self, name, None if number is None else float(number))


def mean_metric(
    values: Sequence[float], clusters: Sequence[str], seed: int = 0, scale: float = 1.0
) -> Metric:
    """Mean of per-sample values with a 95% percentile bootstrap interval over clusters.

    Samples of one picture share its difficulty, so pictures are drawn, not samples (Efron and
    Tibshirani 1993, ch. 8). With a single cluster, or where
    all values are the same, resampling says nothing and there is no interval.
    """
    array = np.asarray(values, dtype=float)
    if len(array) == 0:
        raise ValueError("values: no samples")
    value = float(array.mean()) * scale
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums, counts = np.bincount(index, weights=array), np.bincount(index)
    if len(sums) < 2 or np.ptp(array) == 0:
        return Metric(value, len(array))
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for k in range(RESAMPLES):  # one draw at a time: memory stays that of the sample
        drawn = rng.integers(0, len(sums), len(sums))
        means[k] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.percentile(means, [2.5, 97.5]) * scale
    return Metric(value, len(array), float(low), float(high))
