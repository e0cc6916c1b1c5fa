"""Optuna's parameters as levels of a grid, and the sizes of its points."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

MAX_LEVELS = 64  # of a wide or continuous range
EXACT = 1e-9  # relative tolerance for a size that is a sum over parameters

Points = NDArray[np.int64]  # (points, parameters): indices of levels
Size = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that each parameter can take, in their natural order."""

    levels: Mapping[str, Sequence[Any]]

    @classmethod
    def of(cls, space: Mapping[str, BaseDistribution]) -> "Grid":
        """From Optuna's distributions; of wide and continuous ranges, 64 values."""
        return cls({name: _values(distribution) for name, distribution in space.items()})

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many levels each parameter has."""
        return np.array([len(values) for values in self.levels.values()])

    @property
    def total(self) -> int:
        """How many points there are."""
        return math.prod(len(values) for values in self.levels.values())

    def encode(self, params: Mapping[str, Any]) -> tuple[int, ...]:
        """Indices of the nearest levels to a trial's parameters."""
        return tuple(self.index(name, params[name]) for name in self.levels)

    def index(self, name: str, value: Any) -> int:
        """Index of the nearest level to a parameter's value."""
        values = self.levels[name]
        if value in values:
            return values.index(value)
        return int(np.argmin([abs(float(other) - float(value)) for other in values]))

    def decode(self, point: Sequence[int] | Points) -> dict[str, Any]:
        """The inverse of `encode`."""
        return {
            name: values[k] for (name, values), k in zip(self.levels.items(), point, strict=True)
        }

    def everything(self) -> Points:
        """Every point."""
        axes = [np.arange(n) for n in self.counts]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))

    def random(self, count: int, rng: np.random.Generator) -> Points:
        """Points drawn uniformly."""
        return rng.integers(0, self.counts, (count, len(self.levels)))

    def numbers(self) -> list[NDArray[np.float64]]:
        """Levels as numbers between 0 and 1: their values, or ranks if they are not numbers."""
        columns = []
        for values in self.levels.values():
            numbers = [_number(value) for value in values]
            ranks = [float(k) for k in range(len(values))]
            column = np.array(ranks if None in numbers else numbers, dtype=float)
            columns.append((column - column.min()) / max(np.ptp(column), 1e-12))
        return columns


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _values(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        numbers = [_number(choice) for choice in distribution.choices]
        if None in numbers:
            return list(distribution.choices)  # in the order given
        return sorted(distribution.choices, key=float)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log or step is None:
        space = np.geomspace if distribution.log else np.linspace
        values = [min(max(float(v), low), high) for v in space(low, high, MAX_LEVELS)]
    else:
        count = round((high - low) / step) + 1
        steps = np.unique(np.linspace(0, count - 1, min(count, MAX_LEVELS)).round())
        values = [min(low + int(k) * step, high) for k in steps]
    if isinstance(distribution, IntDistribution):
        return sorted({round(value) for value in values})
    return sorted(set(values))


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of grid points: a sum over parameters, or a function if they are not a sum."""

    offset: float
    table: Sequence[NDArray[np.float64]]  # by parameter: the share of each level
    exact: Callable[[Points], NDArray[np.float64]] | None = None

    def __call__(self, points: Points) -> NDArray[np.float64]:
        """Sizes of points (points, parameters)."""
        if self.exact is not None:
            return self.exact(points)
        parts = [column[points[:, d]] for d, column in enumerate(self.table)]
        return np.asarray(self.offset + np.sum(parts, axis=0), dtype=float)

    @property
    def largest(self) -> float:
        """The largest size of the sum."""
        return float(self.offset + sum(column.max() for column in self.table))

    @property
    def least(self) -> float:
        """The smallest size of the sum."""
        return float(self.offset + sum(column.min() for column in self.table))

    @classmethod
    def tabulated(cls, grid: Grid, size: Size, rng: np.random.Generator) -> "Sizes":
        """From a function of the parameters, which becomes a table if it is a sum."""

        def exact(points: Points) -> NDArray[np.float64]:
            return np.array([size(grid.decode(point)) for point in points.tolist()], dtype=float)

        top = grid.counts - 1
        offset = float(exact(top[None])[0])
        table = []
        for d, count in enumerate(grid.counts):
            steps = np.repeat(top[None], count, axis=0)
            steps[:, d] = np.arange(count)
            table.append(exact(steps) - offset)
        total = cls(offset, table)
        probes = grid.random(16, rng)
        is_sum = np.allclose(total(probes), exact(probes), rtol=EXACT, atol=EXACT * abs(offset))
        return total if is_sum else cls(offset, table, exact)

    @classmethod
    def fitted(cls, grid: Grid, points: Points, sizes: NDArray[np.float64]) -> "Sizes":
        """From measured sizes; exact if sizes are a sum and there are enough of them.

        If sizes are linear in the levels' numbers, that fit is used. Otherwise a ridge regression
        prefers what all parameters share, a slope and a bend per level, to what is each one's own.
        Without any measured size, the mean of the levels' numbers is used.
        """
        numbers = grid.numbers()
        if not len(sizes):
            return cls(0.0, [column / len(numbers) for column in numbers])
        mean = float(sizes.mean())
        spread = max(float(np.ptp(sizes)), 1e-12)
        linear = np.stack([c[points[:, d]] for d, c in enumerate(numbers)], axis=1)
        plain = np.hstack([np.ones((len(points), 1)), linear])
        weights, _, rank, _ = np.linalg.lstsq(plain, sizes, rcond=None)
        if rank == plain.shape[1] and np.abs(plain @ weights - sizes).max() <= EXACT * spread:
            return cls(
                float(weights[0]), [k * c for k, c in zip(weights[1:], numbers, strict=True)]
            )
        bent = [np.eye(n)[points[:, d]] for d, n in enumerate(grid.counts)]
        shared = np.sum(bent, axis=0) if len(set(grid.counts.tolist())) == 1 else plain[:, :0]
        features = np.hstack([linear.sum(1, keepdims=True), shared, linear, *bent])
        skipped = features.shape[1] - len(numbers) - grid.counts.sum()  # shared by all parameters
        variance = np.r_[
            np.ones(1), np.full(skipped - 1, 0.1), np.full(len(numbers), 0.1),
            np.full(grid.counts.sum(), 1e-2),
        ]  # fmt: skip
        middle = features.mean(0)
        centred = (features - middle) * np.sqrt(variance)
        # the dual form has as many unknowns as trials, independent of the number of parameters
        gram = centred @ centred.T + 1e-9 * np.eye(len(points))
        dual = np.linalg.solve(gram, (sizes - mean) / spread)
        weights = centred.T @ dual * spread * np.sqrt(variance)
        slopes = weights[0] + weights[skipped : skipped + len(numbers)]
        own = np.split(weights[skipped + len(numbers) :], np.cumsum(grid.counts)[:-1])
        common = weights[1:skipped] if skipped > 1 else 0.0
        table = [k * c + o + common for k, c, o in zip(slopes, numbers, own, strict=True)]
        return cls(mean - float(middle @ weights), table)


def by_size(grid: Grid, sizes: Sizes) -> tuple[Grid, Sizes]:
    """The same grid, with every parameter's levels in ascending order of size."""
    order = [np.argsort(column, kind="stable") for column in sizes.table]
    levels = {
        name: [values[k] for k in ranks]
        for (name, values), ranks in zip(grid.levels.items(), order, strict=True)
    }
    table = [column[ranks] for column, ranks in zip(sizes.table, order, strict=True)]
    exact = sizes.exact
    if exact is None:
        return Grid(levels), Sizes(sizes.offset, table)

    def reordered(points: Points) -> NDArray[np.float64]:
        return exact(np.stack([ranks[points[:, d]] for d, ranks in enumerate(order)], axis=1))

    return Grid(levels), Sizes(sizes.offset, table, reordered)
