"""The point of the highest value: among all points of a small space, else by local search."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmq_search.front_sampler.grid import Grid, Points
from mmq_search.front_sampler.knapsack import additive_front

Array = NDArray[np.float64]
Value = Callable[[Points], Array]
Fix = Callable[[Points], Points]  # sets enqueued parameters
Allowed = Callable[[Points], NDArray[np.bool_]]
SMALL = 5000  # points: up to here all are evaluated
BEAM, SWAPS, ROUNDS = 5, 150, 6  # of the local search
BINS = 500  # of sizes, for the starts of the local search


def new_points(points: Points, excluded: set[tuple[int, ...]]) -> Points:
    """The points that are not excluded, without duplicates."""
    rows = dict.fromkeys(map(tuple, points.tolist()))
    new = [row for row in rows if row not in excluded]
    return np.array(new, dtype=np.int64).reshape(-1, points.shape[1])


def best(
    grid: Grid,
    value: Value,
    excluded: set[tuple[int, ...]],
    starts: Callable[[], Points],
    fix: Fix,
    rng: np.random.Generator,
) -> Points | None:
    """The new point of the highest value; None if there is none.

    starts: makes points, excluded or not, near which good ones are expected; for large spaces.
    """
    if grid.total <= SMALL:
        pool = new_points(fix(grid.everything()), excluded)
        return np.asarray(pool[int(np.argmax(value(pool)))]) if len(pool) else None
    initial = starts()
    near = _neighbours(rng.permutation(initial)[: 2 * BEAM], grid, rng)
    pool = new_points(fix(np.vstack([initial, near, grid.random(200, rng)])), excluded)
    if not len(pool):
        return None
    values = value(pool)
    for _ in range(ROUNDS):
        order = np.argsort(-values)[:BEAM]
        near = new_points(fix(_neighbours(pool[order], grid, rng)), excluded)
        near_values = value(near)
        better = near_values.max(initial=-np.inf) > values[order[0]]
        pool, values = np.vstack([pool[order], near]), np.r_[values[order], near_values]
        if not better:
            break
    return np.asarray(pool[int(np.argmax(values))])


def _neighbours(points: Points, grid: Grid, rng: np.random.Generator) -> Points:
    """Points with one parameter a level up or down, and some with one up and another down."""
    counts = grid.counts
    step = np.eye(len(counts), dtype=int)
    groups = [points[:, None] + step[None], points[:, None] - step[None]]
    if len(counts) > 1:
        up, down = rng.integers(0, len(counts), (2, SWAPS))
        swaps = step[up] - step[down]
        some = points[rng.integers(0, len(points), SWAPS)]
        groups.append((some + swaps)[None])
    stacked = np.vstack([group.reshape(-1, len(counts)) for group in groups])
    return np.clip(stacked, 0, counts - 1)


def least_losses(losses: Sequence[Array], sizes: Sequence[Array]) -> Points:
    """Points of the lowest loss at every size, rounded to bins; both are sums over parameters."""
    span = sum(float(np.ptp(column)) for column in sizes)
    bins = [np.round((column - column.min()) / max(span, 1e-12) * BINS) for column in sizes]
    steps = [column.astype(int).tolist() for column in bins]
    front = additive_front(steps, [column.tolist() for column in losses])
    return np.array([solution.levels for solution in front])


def farthest(
    grid: Grid,
    allowed: Allowed,
    excluded: set[tuple[int, ...]],
    fix: Fix,
    rng: np.random.Generator,
) -> Points | None:
    """Among some random new points, the one that is farthest from the excluded ones.

    None if there is no new point; a point that is not allowed if no other is left.
    """
    some = grid.everything() if grid.total <= SMALL else grid.random(2000, rng)
    pool = new_points(fix(some), excluded)
    if not len(pool):
        return None
    mask = allowed(pool)
    pool = rng.permutation(pool[mask] if mask.any() else pool)[:256]
    scale = np.maximum(grid.counts - 1, 1)
    others = np.array(sorted(excluded)).reshape(-1, len(scale)) / scale
    distance = np.abs(pool[:, None] / scale - others[None]).sum(-1).min(1, initial=np.inf)
    return np.asarray(pool[int(np.argmax(distance))])
