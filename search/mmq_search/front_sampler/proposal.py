"""The next point, from what is told: the largest expected improvement of the hypervolume."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mmq_search.front_sampler.candidates import Fix, best, least_losses, unseen
from mmq_search.front_sampler.grid import Grid, Points, Sizes
from mmq_search.front_sampler.improvement import expected_excess, expected_improvement, steps
from mmq_search.front_sampler.observations import Told
from mmq_search.front_sampler.surrogate import Constraint, ScoreModel, Shape

Array = NDArray[np.float64]
MOST_TRIALS = 200  # that the model is fitted to: those nearest to the front
MOST_LIMITS = 400  # trials that a constraint is fitted to
TAIL = 10.0  # scores lower below the best than this many times what the median is, count as that


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an answer has to keep to; None: nothing.

    limits: of sizes of other kinds that are known beforehand, with their largest values.
    """

    max_size: float | None = None
    min_score: float | None = None
    limits: Sequence[tuple[Sizes, float]] = ()

    def allow(self, points: Points, sizes: Sizes) -> NDArray[np.bool_]:
        """Which points keep to all that is known of them before they are evaluated."""
        kept = np.ones(len(points), dtype=bool)
        for known, most in (*self.limits, (sizes, self.max_size)):
            if most is not None:
                kept &= known(points) <= most
        return kept


def propose(
    grid: Grid,
    told: Told,
    sizes: Sizes,
    shape: Shape,
    bounds: Bounds,
    fix: Fix,
    rng: np.random.Generator,
) -> Points | None:
    """The unseen point whose expected improvement is largest; None where all were seen.

    grid: levels in ascending order of their sizes. sizes: small is good. fix: sets what is given.
    """
    top = fix((grid.counts - 1)[None])
    alike = not np.ptp(told.scores)  # maybe all are ruined: the largest tells
    if alike and len(unseen(top, told.seen)) and bounds.allow(top, sizes).all():
        return np.asarray(top[0])
    floor = _floor(told.scores)
    near = _nearest(sizes(told.points), told.scores)
    ruined = float(told.scores.min()) if _narrow(told.scores) else floor
    model = ScoreModel(shape, told.points[near], told.scores[near], ruined, sizes)
    if len(told.pending):
        model.believe(told.pending)
    limits = [
        _constraint(grid, told.points[was_set], values[was_set])
        for values in told.constraints.values()
        for was_set in [~np.isnan(values)]
    ]
    if len(told.failed):  # where trials fail, others near by may fail, too
        ended = np.vstack([told.points, told.failed])
        ends = np.repeat([-1.0, 1.0], [len(told.points), len(told.failed)])
        limits.append(_constraint(grid, ended, ends))
    known = np.vstack([told.points[told.feasible], told.pending])
    scores = np.r_[told.scores[told.feasible], model.predict(told.pending)[0]]
    height = max(float(told.scores.max()) - floor, 1e-12)
    allowed = bounds.allow(known, sizes)
    wanted = Wanted.of(sizes(known), scores, allowed, bounds, sizes, floor, height)

    def value(points: Points) -> Array:
        size, (mean, deviation) = sizes(points), model.predict(points)
        gain = wanted.gain(size, mean, deviation)
        for limit in limits:
            gain = gain * limit.probability(points)
        reached = wanted.reached(size)
        hope = (mean + deviation - reached) / model.scale  # tells apart what gains nothing
        found = np.log(gain + 1e-300) + 1e-3 * hope
        return np.where(bounds.allow(points, sizes), found, -1e9 - size)

    def starts() -> Points:
        return np.vstack([known[wanted.on_front], least_losses(model.losses(), sizes.table)])

    return best(grid, value, told.seen, starts, fix, rng)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is hoped for: more hypervolume, and better answers where bounds ask for some."""

    front: tuple[Array, Array, Array]
    on_front: NDArray[np.bool_]  # of the known points
    spread: tuple[float, float]  # of sizes and scores that count
    bounds: Bounds
    best_score: float | None  # under a bound of the size
    least_size: float | None  # with the score that is asked for

    @classmethod
    def of(
        cls,
        size: Array,
        score: Array,
        allowed: NDArray[np.bool_],
        bounds: Bounds,
        sizes: Sizes,
        floor: float,
        height: float,
    ) -> "Wanted":
        """From what is known: sizes and scores, and which points are allowed.

        floor, height: the lowest score that counts, and how far above it scores reach.
        """
        lowest = floor if bounds.min_score is None else max(bounds.min_score, floor)
        largest = sizes.largest if bounds.max_size is None else bounds.max_size
        front = steps(size[allowed], score[allowed], (largest, lowest))
        spread = max(sizes.largest - sizes.least, 1e-12), height
        bounded = bounds.max_size is not None or bounds.limits
        reaching = allowed & (score >= lowest)
        return cls(
            front,
            allowed & np.isin(size, front[0]),
            spread,
            bounds,
            score[allowed].max(initial=lowest) if bounded else None,
            None if bounds.min_score is None else size[reaching].min(initial=largest),
        )

    def gain(self, size: Array, mean: Array, deviation: Array) -> Array:
        """Expected improvement, each as a share of what there is."""
        span, height = self.spread
        gain = expected_improvement(size, mean, deviation, self.front) / (span * height)
        if self.best_score is not None:
            gain = gain + expected_excess(mean, deviation, self.best_score) / height
        if self.least_size is not None:
            reaches = ndtr((mean - self.front[2][0]) / deviation)
            gain = gain + reaches * np.maximum(self.least_size - size, 0) / span
        return np.asarray(gain, dtype=float)

    def reached(self, size: Array) -> Array:
        """The score that the front has at these sizes."""
        starts, _, levels = self.front
        return np.asarray(levels[np.searchsorted(starts, size, side="right") - 1])


def _constraint(grid: Grid, points: Points, values: Array) -> Constraint:
    """Of many trials, those that break it (the latest half), and those nearest to them."""
    if len(points) > MOST_LIMITS:
        broken = np.flatnonzero(~(values <= 0))[-MOST_LIMITS // 2 :]
        scale = np.maximum(grid.counts - 1, 1)
        rest = np.setdiff1d(np.arange(len(points)), broken)
        near = np.zeros(len(rest))
        if len(broken):
            some = points[rest, None] / scale - points[None, broken] / scale
            near = np.abs(some).sum(-1).min(1)
        room = MOST_LIMITS - len(broken)
        chosen = np.sort(np.r_[broken, rest[np.argsort(near, kind="stable")[:room]]])
        points, values = points[chosen], values[chosen]
    return Constraint(grid.counts, points, values)


def _floor(scores: Array) -> float:
    """About what a ruined model scores: zero, or the lowest score where some are negative."""
    lowest, top = float(scores.min()), float(scores.max())
    if lowest >= 0:
        return 0.0
    tail = top - TAIL * (top - float(np.median(scores)))
    return max(lowest, tail) if tail < top else lowest - 1e-9


def _narrow(scores: Array) -> bool:
    """Whether scores differ by little of what they are: zero then is not what ruin looks like."""
    return bool(len(scores) > 8 and 0 < np.ptp(scores) < 0.2 * scores.max())


def _nearest(sizes: Array, scores: Array) -> NDArray[np.int64]:
    """The points that the fewest others, or the closest, dominate."""
    if len(sizes) <= MOST_TRIALS:
        return np.arange(len(sizes))
    order = np.lexsort((-scores, sizes))
    reached = np.maximum.accumulate(scores[order])
    return np.asarray(order[np.argsort(reached - scores[order], kind="stable")[:MOST_TRIALS]])
