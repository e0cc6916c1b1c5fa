"""Where the expected improvement is largest: everywhere in small spaces, else by local search."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmq_search.front_sampler.grid import Grid, Points
from mmq_search.front_sampler.knapsack import additive_front

Array = NDArray[np.float64]
Value = Callable[[Points], Array]
Fix = Callable[[Points], Points]  # sets the parameters that are given
Allowed = Callable[[Points], NDArray[np.bool_]]
SMALL = 5000  # points: up to here all are looked at
KEPT, SWAPS, ROUNDS = 5, 150, 6  # of the local search
BINS = 500  # of sizes, for starts of the local search


def unseen(points: Points, seen: set[tuple[int, ...]]) -> Points:
    """The different points among these that were not seen."""
    rows = dict.fromkeys(map(tuple, points.tolist()))
    fresh = [row for row in rows if row not in seen]
    return np.array(fresh, dtype=np.int64).reshape(-1, points.shape[1])


def best(
    grid: Grid,
    value: Value,
    seen: set[tuple[int, ...]],
    starts: Callable[[], Points],
    fix: Fix,
    rng: np.random.Generator,
) -> Points | None:
    """The unseen point of the highest value; None where all were seen.

    starts: makes points that may be seen, near which good ones are expected; for large spaces.
    """
    if grid.total <= SMALL:
        pool = unseen(fix(grid.everything()), seen)
        return np.asarray(pool[int(np.argmax(value(pool)))]) if len(pool) else None
    near_by = starts()
    near = _neighbours(rng.permutation(near_by)[: 2 * KEPT], grid, rng)
    pool = unseen(fix(np.vstack([near_by, near, grid.random(200, rng)])), seen)
    if not len(pool):
        return None
    values = value(pool)
    for _ in range(ROUNDS):
        order = np.argsort(-values)[:KEPT]
        near = unseen(fix(_neighbours(pool[order], grid, rng)), seen)
        found = value(near)
        better = found.max(initial=-np.inf) > values[order[0]]
        pool, values = np.vstack([pool[order], near]), np.r_[values[order], found]
        if not better:
            break
    return np.asarray(pool[int(np.argmax(values))])


def _neighbours(points: Points, grid: Grid, rng: np.random.Generator) -> Points:
    """One parameter a level up or down; some pairs, one up and one down."""
    counts = grid.counts
    step = np.eye(len(counts), dtype=int)
    found = [points[:, None] + step[None], points[:, None] - step[None]]
    if len(counts) > 1:
        up, down = rng.integers(0, len(counts), (2, SWAPS))
        swaps = step[up] - step[down]
        some = points[rng.integers(0, len(points), SWAPS)]
        found.append((some + swaps)[None])
    every = np.vstack([part.reshape(-1, len(counts)) for part in found])
    return np.clip(every, 0, counts - 1)


def least_losses(losses: Sequence[Array], sizes: Sequence[Array]) -> Points:
    """Points of the smallest loss for every size, where both are sums; sizes to a bin."""
    span = sum(float(np.ptp(column)) for column in sizes)
    bins = [np.round((column - column.min()) / max(span, 1e-12) * BINS) for column in sizes]
    steps = [column.astype(int).tolist() for column in bins]
    front = additive_front(steps, [column.tolist() for column in losses])
    return np.array([solution.levels for solution in front])


def farthest(
    grid: Grid, allowed: Allowed, seen: set[tuple[int, ...]], fix: Fix, rng: np.random.Generator
) -> Points | None:
    """Of some random unseen points the one that is farthest from those that were seen.

    None where all were seen; one that is not allowed where no other is found.
    """
    some = grid.everything() if grid.total <= SMALL else grid.random(2000, rng)
    pool = unseen(fix(some), seen)
    if not len(pool):
        return None
    kept = allowed(pool)
    pool = rng.permutation(pool[kept] if kept.any() else pool)[:256]
    scale = np.maximum(grid.counts - 1, 1)
    known = np.array(sorted(seen)).reshape(-1, len(scale)) / scale
    apart = np.abs(pool[:, None] / scale - known[None]).sum(-1).min(1, initial=np.inf)
    return np.asarray(pool[int(np.argmax(apart))])
