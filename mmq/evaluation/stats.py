"""Scores with intervals, by resampling the evaluation set."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from mmq.contracts.metric import Metric

RESAMPLES = 1000


Z = 1.959963984540054  # normal quantile of a 95% interval


def name_part(text: str) -> str:
    """A text from a data file as part of a metric's name: invalid characters become _.

    Slashes, too: they would create a group of charts.

    >>> name_part("yes/no"), name_part("obj & rel")
    ('yes_no', 'obj___rel')
    """
    return re.sub(r"[^\w.-]", "_", text, flags=re.ASCII)


def mean_metric(
    values: Sequence[float],
    clusters: Sequence[str],
    seed: int = 0,
    scale: float = 1.0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Metric:
    """Mean of per-sample values with its 95% interval; `scale` 100 gives percent.

    bounds: the range of a value before scaling.
    """
    array = np.asarray(values, dtype=float)
    columns = np.stack([array, np.ones_like(array)], axis=1)
    scaled = (bounds[0] * scale, bounds[1] * scale)
    (metric,) = corpus_metrics(columns, clusters, lambda t: t[:1] / t[1] * scale, seed, scaled)
    return metric


def corpus_metrics(
    columns: np.ndarray,
    clusters: Sequence[str],
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    bounds: tuple[float, float] | None = None,
) -> list[Metric]:
    """Scores that are a function of sums over samples, with 95% percentile bootstrap intervals.

    columns: what is summed, (n, c). statistic: column sums (c,) -> scores (k,).
    Samples of one picture share its difficulty, so pictures (clusters) are resampled, not samples
    (Efron and Tibshirani 1993, ch. 8). With a single cluster there is no interval.

    If every resample gives the same score (usually 0 or 100), the bootstrap is uninformative:
    scores within `bounds` get the interval of `equal_interval` over the clusters, others none.
    """
    n = len(columns)
    if n == 0:
        raise ValueError("values: no samples")
    values = statistic(columns.sum(0))
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.stack([np.bincount(index, weights=column) for column in columns.T], axis=1)
    if len(sums) < 2:
        return [Metric(value, n) for value in values]
    rng = np.random.default_rng(seed)
    draws = np.empty((RESAMPLES, len(values)))
    for k in range(RESAMPLES):  # one resample at a time, to save memory
        draws[k] = statistic(sums[rng.integers(0, len(sums), len(sums))].sum(0))
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    same = np.isclose(np.ptp(draws, axis=0), 0, atol=1e-12)
    return [
        _equal_metric(value, n, len(sums), bounds)
        if same[k]
        else Metric(value, n, low[k], high[k])
        for k, value in enumerate(values)
    ]


def _equal_metric(
    value: float, n: int, clusters: int, bounds: tuple[float, float] | None
) -> Metric:
    if bounds is None or not bounds[0] - 1e-9 <= value <= bounds[1] + 1e-9:
        return Metric(value, n)
    low, high = equal_interval(value, clusters, bounds)
    return Metric(value, n, low, high)


def equal_interval(value: float, n: int, bounds: tuple[float, float]) -> tuple[float, float]:
    """The 95% interval of a mean if all n independent values are equal.

    By Wilson's interval (1927), at most z^2 / (n + z^2) of all values differ from the
    observed one; at worst these are at the bounds. For 0/1 values this is Wilson's interval
    itself, and close to the rule of three.

    >>> [round(x, 1) for x in equal_interval(100, 20, (0, 100))]
    [83.9, 100.0]
    """
    others = Z**2 / (n + Z**2)
    low, high = bounds
    return float(value - others * (value - low)), float(value + others * (high - value))
