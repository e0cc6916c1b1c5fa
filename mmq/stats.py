"""Scores with intervals, by resampling the evaluation set."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
METRIC_NAME = re.compile(r"[\w./ -]+", re.ASCII)  # what MLflow's stores accept


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


def name_part(text: str) -> str:
    """A text from a data file as part of a metric's name: _ for what such names cannot hold.

    A slash becomes one too: it would make a group of charts.

    >>> name_part("yes/no"), name_part("obj & rel")
    ('yes_no', 'obj___rel')
    """
    return re.sub(r"[^\w.-]", "_", text, flags=re.ASCII)


def mean_metric(
    values: Sequence[float], clusters: Sequence[str], seed: int = 0, scale: float = 1.0
) -> Metric:
    """Mean of per-sample values with its 95% interval; `scale` 100 gives percent."""
    array = np.asarray(values, dtype=float)
    columns = np.stack([array, np.ones_like(array)], axis=1)
    (metric,) = corpus_metrics(columns, clusters, lambda t: t[:1] / t[1] * scale, seed)
    return metric


def corpus_metrics(
    columns: np.ndarray,
    clusters: Sequence[str],
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
) -> list[Metric]:
    """Scores that are a function of sums over samples, with 95% percentile bootstrap intervals.

    columns: what is summed, (n, c). statistic: column sums (c,) -> scores (k,).
    Samples of one picture share its difficulty, so pictures (clusters) are drawn, not samples
    (Efron and Tibshirani 1993, ch. 8). With a single cluster, or where all samples are the same,
    resampling says nothing and there is no interval.
    """
    n = len(columns)
    if n == 0:
        raise ValueError("values: no samples")
    values = statistic(columns.sum(0))
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.stack([np.bincount(index, weights=column) for column in columns.T], axis=1)
    if len(sums) < 2 or not np.ptp(columns, axis=0).any():
        return [Metric(value, n) for value in values]
    rng = np.random.default_rng(seed)
    draws = np.empty((RESAMPLES, len(values)))
    for k in range(RESAMPLES):  # one draw at a time: memory stays that of the sample
        draws[k] = statistic(sums[rng.integers(0, len(sums), len(sums))].sum(0))
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return [Metric(*row) for row in zip(values, [n] * len(values), low, high, strict=True)]
