"""The next point to evaluate: the one with the largest expected improvement of the hypervolume."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from mmq_search.front_sampler.candidates import Fix, best, least_losses, new_points
from mmq_search.front_sampler.grid import Grid, Points, Sizes
from mmq_search.front_sampler.improvement import expected_excess, expected_improvement, steps
from mmq_search.front_sampler.observations import Observations
from mmq_search.front_sampler.surrogate import Constraint, ScoreModel, Shape

Array = NDArray[np.float64]
MAX_TRIALS = 200  # that the model is fitted to: those nearest to the front
MAX_LIMIT_TRIALS = 400  # that a constraint is fitted to
FRONT = 0.1  # weight of the front's improvement within bounds; that of the selection has 1
FREEDOM = 6  # of Student's t: the model's errors have heavier tails than a normal distribution
TAIL = 10.0  # scores are clipped at this many times the median's distance below the best


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on the selected allocation; None for no bound.

    limits: other sizes that are known beforehand, with their largest values.
    """

    max_size: float | None = None
    min_score: float | None = None
    limits: Sequence[tuple[Sizes, float]] = ()

    def allow(self, points: Points, sizes: Sizes) -> NDArray[np.bool_]:
        """Which points are within the bounds on sizes."""
        allowed = np.ones(len(points), dtype=bool)
        for size, most in (*self.limits, (sizes, self.max_size)):
            if most is not None:
                allowed &= size(points) <= most
        return allowed


def propose(
    grid: Grid,
    observations: Observations,
    sizes: Sizes,
    shape: Shape,
    bounds: Bounds,
    fix: Fix,
    rng: np.random.Generator,
) -> Points | None:
    """The new point with the largest expected improvement; None if there is none.

    grid: levels in ascending order of size. sizes: small is good. fix: sets enqueued parameters.
    """
    top = fix((grid.counts - 1)[None])
    alike = not np.ptp(observations.scores)  # all may have collapsed: the largest shows it
    if alike and len(new_points(top, observations.excluded)) and bounds.allow(top, sizes).all():
        return np.asarray(top[0])
    floor = _floor(observations.scores)
    near = _nearest(sizes(observations.points), observations.scores)
    collapsed = float(observations.scores.min()) if _narrow(observations.scores) else floor
    model = ScoreModel(
        shape, observations.points[near], observations.scores[near], collapsed, sizes
    )
    if len(observations.pending):
        model.believe(observations.pending)
    limits = [
        _constraint(grid, observations.points[is_set], values[is_set])
        for values in observations.constraints.values()
        for is_set in [~np.isnan(values)]
    ]
    if len(observations.failed):  # points near failed ones may fail, too
        points = np.vstack([observations.points, observations.failed])
        outcomes = np.repeat([-1.0, 1.0], [len(observations.points), len(observations.failed)])
        limits.append(_constraint(grid, points, outcomes))
    feasible, pending = observations.feasible, observations.pending
    base = np.vstack([observations.points[feasible], pending])
    scores = np.r_[observations.scores[feasible], model.predict(pending)[0]]
    height = max(float(observations.scores.max()) - floor, 1e-12)
    allowed = bounds.allow(base, sizes)
    acquisition = Acquisition.of(sizes(base), scores, allowed, bounds, sizes, floor, height)

    def value(points: Points) -> Array:
        size, (mean, deviation) = sizes(points), model.predict(points)
        gain = acquisition.gain(size, mean, deviation)
        for limit in limits:
            gain = gain * limit.probability(points)
        reached = acquisition.reached(size)
        hope = (mean + deviation - reached) / model.scale  # ranks points without a gain
        utility = np.log(gain + 1e-300) + 1e-3 * hope
        return np.where(bounds.allow(points, sizes), utility, -1e9 - size)

    def starts() -> Points:
        return np.vstack([base[acquisition.on_front], least_losses(model.losses(), sizes.table)])

    return best(grid, value, observations.excluded, starts, fix, rng)


@dataclass(frozen=True, slots=True)
class Acquisition:
    """The expected improvement of the front, and of the best allocation within the bounds."""

    front: tuple[Array, Array, Array]
    on_front: NDArray[np.bool_]  # of the evaluated and pending points
    spread: tuple[float, float]  # of sizes and scores that count
    bounds: Bounds
    best_score: float | None  # under a bound of the size
    least_size: float | None  # with the minimum score

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
    ) -> "Acquisition":
        """From sizes and scores of evaluated and pending points, and which of them are allowed.

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
        """Expected improvements, as shares of the ranges of sizes and scores.

        Within bounds, the front counts less than the selection. Otherwise, points above the
        minimum score, where scores differ by noise alone, would be evaluated before smaller ones.
        """
        span, height = self.spread
        gain = expected_improvement(size, mean, deviation, self.front) / (span * height)
        if self.best_score is not None or self.least_size is not None:
            gain = FRONT * gain
        if self.best_score is not None:
            gain = gain + expected_excess(mean, deviation, self.best_score) / height
        if self.least_size is not None:
            # heavy tails: a score that is wrongly taken for certain would never be checked
            reaches = stdtr(FREEDOM, (mean - self.front[2][0]) / deviation)
            gain = gain + reaches * np.maximum(self.least_size - size, 0) / span
        return np.asarray(gain, dtype=float)

    def reached(self, size: Array) -> Array:
        """The score that the front has at these sizes."""
        starts, _, levels = self.front
        return np.asarray(levels[np.searchsorted(starts, size, side="right") - 1])


def _constraint(grid: Grid, points: Points, values: Array) -> Constraint:
    """The model of a constraint, fitted to the latest trials that break it and those nearest to
    them.
    """
    if len(points) > MAX_LIMIT_TRIALS:
        broken = np.flatnonzero(~(values <= 0))[-MAX_LIMIT_TRIALS // 2 :]
        scale = np.maximum(grid.counts - 1, 1)
        rest = np.setdiff1d(np.arange(len(points)), broken)
        near = np.zeros(len(rest))
        if len(broken):
            some = points[rest, None] / scale - points[None, broken] / scale
            near = np.abs(some).sum(-1).min(1)
        room = MAX_LIMIT_TRIALS - len(broken)
        selected = np.sort(np.r_[broken, rest[np.argsort(near, kind="stable")[:room]]])
        points, values = points[selected], values[selected]
    return Constraint(grid.counts, points, values)


def _floor(scores: Array) -> float:
    """About the score of a collapsed model: zero, or the lowest score if some are negative."""
    lowest, top = float(scores.min()), float(scores.max())
    if lowest >= 0:
        return 0.0
    tail = top - TAIL * (top - float(np.median(scores)))
    return max(lowest, tail) if tail < top else lowest - 1e-9


def _narrow(scores: Array) -> bool:
    """Whether scores are so close that zero is no estimate of a collapsed model's score."""
    return bool(len(scores) > 8 and 0 < np.ptp(scores) < 0.2 * scores.max())


def _nearest(sizes: Array, scores: Array) -> NDArray[np.int64]:
    """Indices of the points that are nearest to the front."""
    if len(sizes) <= MAX_TRIALS:
        return np.arange(len(sizes))
    order = np.lexsort((-scores, sizes))
    reached = np.maximum.accumulate(scores[order])
    return np.asarray(order[np.argsort(reached - scores[order], kind="stable")[:MAX_TRIALS]])
