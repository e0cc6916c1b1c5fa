"""Shares of importance in percent, and their intervals."""

import numpy as np

from mmq.analysis.forest import Measured


def percent(measured: Measured) -> np.ndarray:
    """Percent (measures, parts), the consensus last; NaN if all of a measure's values are 0.

    A negative permutation importance is noise around zero and counts as zero.
    """
    rows = [measured.impurity, measured.permutation.mean(axis=0), measured.shap]
    shares = np.stack([normalized(row) for row in rows])
    return np.concatenate([shares, shares.mean(axis=0, keepdims=True)])


def normalized(values: np.ndarray) -> np.ndarray:
    """Percent of the sum along the last axis; negative values count as zero."""
    values = np.maximum(values, 0)
    total = values.sum(axis=-1, keepdims=True)
    out = np.full_like(values, np.nan)
    result: np.ndarray = np.divide(100 * values, total, out=out, where=total > 0)
    return result


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95% of resampled values, without NaN."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
