"""Expected hypervolume improvement of points with a known size and an uncertain score."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


def steps(
    sizes: Array, scores: Array, reference: tuple[float, float]
) -> tuple[Array, Array, Array]:
    """The front as a staircase: first and last size of every step, and its score.

    reference: the largest size and the lowest score that count. The first step has that score.
    """
    largest, lowest = reference
    starts, levels = [-np.inf], [lowest]
    for k in np.lexsort((-scores, sizes)):
        if sizes[k] < largest and scores[k] > levels[-1]:
            starts.append(sizes[k])
            levels.append(scores[k])
    starts_array = np.array(starts)
    return starts_array, np.r_[starts_array[1:], largest], np.array(levels)


def hypervolume(sizes: Array, scores: Array, reference: tuple[float, float]) -> float:
    """Area that the front dominates within the reference."""
    starts, ends, levels = steps(sizes, scores, reference)
    return float(((ends[1:] - starts[1:]) * (levels[1:] - reference[1])).sum())


def expected_improvement(
    sizes: Array,
    mean: Array,
    deviation: Array,
    front: tuple[Array, Array, Array],
) -> Array:
    """Expected gain in hypervolume from points with known sizes and normally distributed scores.

    With h(t) the score that the front reaches at size t, a point of size s and score y gains the
    integral of max(0, y - h(t)) over t from s on. h is a staircase, so the expectation is a sum
    of expected excesses over its steps, each times its width.
    """
    starts, ends, levels = front
    widths = np.maximum(ends[None] - np.maximum(starts[None], sizes[:, None]), 0)  # (m, steps)
    gain = expected_excess(mean[:, None], deviation[:, None], levels[None])
    return np.asarray((widths * gain).sum(1), dtype=float)


def expected_excess(mean: Array, deviation: Array, level: Array | float) -> Array:
    """Expectation of max(0, y - level) for normally distributed y (Jones et al. 1998, eq. 15)."""
    z = (mean - level) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.asarray(np.maximum((mean - level) * ndtr(z) + deviation * density, 0), dtype=float)
