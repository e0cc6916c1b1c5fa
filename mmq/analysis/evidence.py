"""The certainty of a selection: paired resamples, and how many pictures would be enough."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmq.analysis.fronts import SURE, Point
from mmq.evaluation.stats import RESAMPLES

Z_BOTH, Z_POWER = 1.959964, 0.841621  # normal quantiles: 95% two-sided, 80% power
UNSURE = "The certainty is unknown: there are no scores per sample."
PerSample = Callable[[str], Sequence[float] | None]


@dataclass(frozen=True, slots=True, eq=False)
class PairedScores:
    """Scores of allocations on the same pictures, and on the same resamples of them.

    sizes: number of samples per picture, (pictures,). totals: by allocation, sums of scores per
    picture (pictures,), in the score's units. resampled: by allocation, scores (resamples,).
    """

    sizes: np.ndarray
    totals: Mapping[str, np.ndarray]
    resampled: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        points: Sequence[Point],
        per_sample: PerSample,
        clusters: Sequence[str],
        seed: int = 0,
    ) -> "PairedScores":
        """clusters: the picture of every sample.

        Allocations without a value for every sample are omitted; all are if there is only one
        picture.
        """
        _, index, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
        if len(sizes) < 2:
            return cls(sizes, {}, {})
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), RESAMPLES)
        counts = counts.astype(float)  # once, not for every allocation
        totals, resampled = {}, {}
        for point in points:
            values = per_sample(point.allocation)
            if not values or len(values) != len(index) or not np.isfinite(values).all():
                continue
            scale = point.score / np.mean(values) if np.mean(values) else 1.0  # such as percent
            sums = np.bincount(index, weights=values)
            # scaled last: equal values then have equal scores to the last digit
            totals[point.allocation] = sums * scale
            resampled[point.allocation] = counts @ sums / (counts @ sizes) * scale
        return cls(sizes, totals, resampled)

    @property
    def pictures(self) -> int:
        """How many pictures there are."""
        return len(self.sizes)

    @property
    def fewest(self) -> int:
        """How many pictures a task has at least; of one task, all."""
        return self.pictures

    @property
    def hidden(self) -> float:
        """The largest share of all pictures that may change (95%) if none of these did.

        (1 - share)^n = 5%, which the rule of three, 3/n, approximates.
        """
        return float(1 - (1 - SURE) ** (1 / self.fewest))

    def pair(self, new: Point, old: Point) -> tuple[np.ndarray, np.ndarray]:
        """Totals of the pictures of both."""
        return self.totals[new.allocation], self.totals[old.allocation]

    def bounded(self, point: Point) -> np.ndarray:
        """The values that a bound on the score compares, by resample."""
        return self.resampled[point.allocation]

    def has(self, *points: Point) -> bool:
        """Whether all of these have a score of every sample."""
        return all(point.allocation in self.totals for point in points)

    def lost(self, new: Point, old: Point) -> bool:
        """Whether any picture scores less."""
        drop = self.totals[old.allocation] - self.totals[new.allocation]
        return bool((drop > 1e-9 * np.abs(self.totals[old.allocation]).max(initial=1e-300)).any())

    def share(self, new: Point, old: Point) -> tuple[float, float] | None:
        """95% interval of new's score as a share of old's, paired over pictures.

        If no picture lost, the lower end allows for losses that so many pictures cannot reveal.
        """
        above, below = self.resampled[new.allocation], self.resampled[old.allocation]
        shares = above[below > 0] / below[below > 0]  # undefined for a score of 0
        if not len(shares):
            return None
        low, high = (float(end) for end in np.percentile(shares, [2.5, 97.5]))
        return (low if self.lost(new, old) else min(low, 1 - self.hidden)), high


def pictures_to_detect(new: np.ndarray, old: np.ndarray, drop: float) -> int:
    """How many pictures reveal a loss of this share of old's score: 80% power, 95% two-sided.

    new, old: totals of pictures (pictures,). n = (1.96 + 0.84)^2 (s / (m drop))^2 with m the mean
    of old and s the standard deviation of new - r old, r = sum(new) / sum(old): the paired test
    of a ratio (Cochran 1977, section 6.4). If no picture lost, as many as would have shown a loss
    with 95%: (1 - drop)^n = 5%.
    """
    if not (new < old - 1e-9 * np.abs(old).max(initial=1e-300)).any():
        return math.ceil(math.log(1 - SURE) / math.log(1 - min(drop, 1 - 1e-9)))
    rest = new - new.sum() / old.sum() * old
    spread = float(rest.std(ddof=1)) / (float(old.mean()) * drop)
    return max(2, math.ceil((Z_BOTH + Z_POWER) ** 2 * spread**2))


def about(number: int) -> str:
    """A number rounded up to two significant digits.

    >>> about(1512), about(37), about(299)
    ('1,600', '37', '300')
    """
    unit = 10 ** max(0, len(str(number)) - 2)
    return f"{-(-number // unit) * unit:,}"


def percent(share: float) -> str:
    """A share as a percentage with at most three significant digits.

    >>> percent(0.01), percent(0.005), percent(0.1)
    ('1%', '0.5%', '10%')
    """
    return f"{100 * share:.3g}%"
