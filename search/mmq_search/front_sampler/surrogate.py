"""A model of the scores: a product of saturating curves, and a Gaussian process on the rest.

Quantization errors fall exponentially with the bits, and losses of several parts multiply. With
`l` the level of parameter `d`,

    score = floor + (top - floor) * prod_d exp(-exp(a_d + k_d * h_d(l)))

where `h_d(l) = -rank of l`, or the log of a loss that is known beforehand. The curves are fitted
with priors on all of their parameters (maximum a posteriori), so that a handful of trials suffices
in any number of dimensions. A Gaussian process models what they miss; its covariance also carries
the uncertainty of the curves (they enter it linearized, with their priors).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import ndtr

from mmq_search.front_sampler.grid import Points

Array = NDArray[np.float64]
STEEP = 30.0  # larger exponents change nothing
OUTLIER = 2.0  # standard deviations beyond which errors count less
STEPS = 40
LENGTHS = (0.15, 0.3, 0.6, 1.2)
ROUGHNESS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
NOISE = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1)
TREND = (0.005, 0.05, 0.1, 0.2, 0.4)
LIKELY, SPREAD = (0.4, 0.03, 0.02, 0.02), (1.0, 0.7, 1.0, 1.5)  # priors of their logarithms
WIDE = 0.3  # length scale of the residual over sizes, as a share of their range


@dataclass(frozen=True, slots=True)
class Shape:
    """The exponents h (by parameter, one value per level) and the priors of their curves."""

    exponents: Sequence[Array]
    height: float  # prior mean of a_d
    own_height: float  # prior deviation of a parameter's a_d from the common one
    slope: float  # prior mean of log k_d
    own_slope: float

    @classmethod
    def plain(cls, counts: Sequence[int]) -> "Shape":
        """Without prior knowledge; counts: how many levels each parameter has."""
        ranks = [np.arange(n, dtype=float) * min(1.0, 7 / max(n - 1, 1)) for n in counts]
        return cls([-rank for rank in ranks], np.log(2.5 / len(ranks)), 1.2, 0.3, 0.5)

    @classmethod
    def profiled(cls, losses: Sequence[Array]) -> "Shape":
        """From losses that are known beforehand, up to a common power and factors near one.

        The power is about 0.75: scores fall ever more slowly as a model's decisions diverge.
        """
        most = max(max(float(column.max()) for column in losses), 1e-300)
        shares = [np.maximum(column / most, 1e-7) for column in losses]
        total = sum(float(column.max()) for column in shares)
        return cls(
            [np.log(column) for column in shares], np.log(2.5 / total), 0.7, np.log(0.75), 0.2
        )


class Curves:
    """The product of saturating curves; theta = top, floor, a, log k, own a_d, own log k_d."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.size = shape, len(shape.exponents)
        own = np.ones(self.size)
        self.mean = np.r_[1.0, 0.0, shape.height, shape.slope, 0 * own, 0 * own]
        self.deviation = np.r_[0.15, 0.2, 1.0, 0.4, shape.own_height * own, shape.own_slope * own]

    def losses(self, theta: Array) -> list[Array]:
        """exp(a_d + k_d h_d) of every level, by parameter."""
        heights, slopes = self._own(theta)
        return [
            np.exp(np.clip(a + k * h, -STEEP, 4))
            for a, k, h in zip(heights, slopes, self.shape.exponents, strict=True)
        ]

    def _own(self, theta: Array) -> tuple[Array, Array]:
        own_heights, own_slopes = np.split(theta[4:], 2)
        slopes = np.exp(np.clip(theta[3] + own_slopes, -4, 3))
        return theta[2] + own_heights, slopes

    def at(self, theta: Array, points: Points) -> tuple[Array, Array]:
        """Values (points,) and their gradient (points, parameters of the curves)."""
        _, slopes = self._own(theta)
        loss, bend = np.empty(points.shape), np.empty(points.shape)
        for d, column in enumerate(self.losses(theta)):
            loss[:, d] = column[points[:, d]]
            bend[:, d] = loss[:, d] * slopes[d] * self.shape.exponents[d][points[:, d]]
        retained = np.exp(-loss.sum(1))
        fall = -(theta[0] - theta[1]) * retained[:, None]
        gradient = np.hstack([
            retained[:, None], 1 - retained[:, None],
            fall * loss.sum(1, keepdims=True), fall * bend.sum(1, keepdims=True),
            fall * loss, fall * bend,
        ])  # fmt: skip
        return theta[1] + (theta[0] - theta[1]) * retained, gradient

    def fit(self, points: Points, scores: Array) -> Array:
        """The most probable parameters; outliers count less."""
        theta: Array = self.mean
        noise = 0.1
        for _ in range(2):
            theta = self._descend(theta, points, scores, noise)
            misfit = np.median(np.abs(self.at(theta, points)[0] - scores)) * 1.5
            noise = float(np.clip(misfit, 0.02, 0.2))
        return theta

    def _descend(self, theta: Array, points: Points, scores: Array, noise: float) -> Array:
        """Levenberg-Marquardt from theta, with a soft absolute error."""
        precision, damping = self.deviation**-2, 1e-2

        def state(at: Array) -> tuple[float, Array, Array]:
            values, gradient = self.at(at, points)
            error = (values - scores) / noise
            soft = np.sqrt(1 + (error / OUTLIER) ** 2)
            cost = OUTLIER**2 * (soft - 1).sum() + 0.5 * ((at - self.mean) ** 2 @ precision)
            weighted = gradient.T / (soft * noise)
            slope = weighted @ error + (at - self.mean) * precision
            return float(cost), slope, weighted @ gradient / noise + np.diag(precision)

        cost, slope, bend = state(theta)
        for _ in range(STEPS):
            trial = theta - np.linalg.solve(bend + damping * np.diag(np.diag(bend)), slope)
            next_state = state(trial)
            if next_state[0] >= cost:
                damping *= 5
                continue
            gain = cost - next_state[0]
            theta, (cost, slope, bend) = np.asarray(trial, dtype=float), next_state
            damping /= 5
            if gain < 1e-4 * (1 + cost):
                break
        return theta


class Process:
    """A Gaussian process: linear features with a prior, Matérn residuals, and noise.

    One residual depends on all coordinates, the other on the last one, the size, alone. The scales
    have the highest marginal likelihood on a coarse grid.
    """

    def __init__(self, features: Array, coordinates: Array, values: Array) -> None:
        """features: (n, f), scaled to unit prior variance; coordinates: (n, d); values: (n,)."""
        self.features, self.coordinates, self.values = features, coordinates, values
        self._update_distances()
        self._fit_scales()

    def _update_distances(self) -> None:
        self._linear = self.features @ self.features.T
        self._distances = _distances(self.coordinates, self.coordinates)
        self._over_sizes = _of_size(self.coordinates, self.coordinates)

    def _fit_scales(self) -> None:
        options = (LENGTHS, ROUGHNESS, NOISE, TREND)
        best: tuple[float, ...] = (0.3, 0.02, 0.02, 0.005)
        cache: dict[tuple[float, ...], float] = {}

        def likelihood(scales: tuple[float, ...]) -> float:
            if scales not in cache:
                cache[scales] = self._likelihood(*scales)
            return cache[scales]

        for _ in range(2):
            for k, values in enumerate(options):
                candidates = [(*best[:k], value, *best[k + 1 :]) for value in values]
                best = max(candidates, key=likelihood)
        self._scales = best
        self.length, self.roughness, self.noise, self.trend = best
        self._condition()

    def _covariance(self, length: float, roughness: float, noise: float, trend: float) -> Array:
        matrix = self._linear + roughness**2 * _matern(self._distances / length)
        matrix += trend**2 * self._over_sizes
        matrix[np.diag_indices_from(matrix)] += noise**2 + 1e-8
        return matrix

    def _likelihood(self, *scales: float) -> float:
        factor, _ = cho_factor(self._covariance(*scales), lower=True)
        white = solve_triangular(factor, self.values, lower=True)
        fit = -0.5 * white @ white - np.log(np.diag(factor)).sum()
        priors = zip(scales, LIKELY, SPREAD, strict=True)
        unlikely = sum((np.log(scale / mean) / spread) ** 2 for scale, mean, spread in priors)
        return float(fit - 0.5 * unlikely)

    def _condition(self) -> None:
        covariance = self._covariance(*self._scales)
        self._factor = cho_factor(covariance, lower=True)
        self._weights = cho_solve(self._factor, self.values)

    def predict(self, features: Array, coordinates: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the values without noise."""
        cross = features @ self.features.T + self.roughness**2 * _matern(
            _distances(coordinates, self.coordinates) / self.length
        )
        cross += self.trend**2 * _of_size(coordinates, self.coordinates)
        half = solve_triangular(self._factor[0], cross.T, lower=True)
        residual = self.roughness**2 + self.trend**2
        variance = (features**2).sum(1) + residual - (half**2).sum(0)
        mean = np.asarray(cross @ self._weights, dtype=float)
        return mean, np.asarray(np.sqrt(np.maximum(variance, 1e-12)), dtype=float)

    def believe(self, features: Array, coordinates: Array) -> None:
        """Condition on the expected values at points that other processes are evaluating
        (the "kriging believer" of Ginsbourger et al. 2010).
        """
        values, _ = self.predict(features, coordinates)
        self.features = np.vstack([self.features, features])
        self.coordinates = np.vstack([self.coordinates, coordinates])
        self.values = np.r_[self.values, values]
        self._update_distances()
        self._condition()


def _of_size(a: Array, b: Array) -> Array:
    return _matern(np.abs(a[:, -1:] - b[None, :, -1]) / WIDE)


def _distances(a: Array, b: Array) -> Array:
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0)), dtype=float)


def _matern(distance: Array) -> Array:
    """Matérn covariance with smoothness 5/2."""
    scaled = np.sqrt(5) * distance
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled), dtype=float)


class ScoreModel:
    """Predicts the scores of grid points from those of evaluated ones."""

    def __init__(
        self,
        shape: Shape,
        points: Points,
        scores: Array,
        floor: float,
        sizes: Callable[[Points], Array],
    ) -> None:
        """scores: higher is better; floor: about the score of a collapsed model."""
        self._sizes = sizes
        self._span = sizes(
            np.array([[0] * points.shape[1], [len(h) - 1 for h in shape.exponents]])
        )
        self.curves = Curves(shape)
        self.low = floor
        self.scale = max(float(scores.max()) - floor, 1e-12)
        values = (np.maximum(scores, floor) - floor) / self.scale
        self.theta = self.curves.fit(points, values)
        self._retained = [np.exp(-loss) for loss in self.curves.losses(self.theta)]
        expected, features = self._linearized(points)
        self._process = Process(features, self._coordinates(points), values - expected)

    def _linearized(self, points: Points) -> tuple[Array, Array]:
        """Prior mean and features (unit prior variance) of the curves, linear around the fit."""
        curves = self.curves
        values, gradient = curves.at(self.theta, points)
        expected = values + gradient @ (curves.mean - self.theta)
        return np.asarray(expected, dtype=float), gradient * curves.deviation

    def _coordinates(self, points: Points) -> Array:
        """Levels, warped by their curves so that levels with similar scores are close."""
        columns = [
            retained[points[:, d]] + 0.3 * points[:, d] / max(len(retained) - 1, 1)
            for d, retained in enumerate(self._retained)
        ]
        few = max(1.0, len(columns) / 3)
        warped = np.stack(columns, axis=1) / np.sqrt(few)
        low, high = self._span
        share = (self._sizes(points) - low) / max(high - low, 1e-12)
        return np.column_stack([warped, share])

    def predict(self, points: Points) -> tuple[Array, Array]:
        """Mean and standard deviation of the score, in its own units."""
        expected, features = self._linearized(points)
        mean, deviation = self._process.predict(features, self._coordinates(points))
        return self.low + self.scale * (expected + mean), self.scale * deviation

    def believe(self, points: Points) -> None:
        """Condition on the expected scores of points that other processes are evaluating."""
        _, features = self._linearized(points)
        self._process.believe(features, self._coordinates(points))

    def losses(self) -> list[Array]:
        """The loss of each level by parameter: the smaller the sum, the higher the score."""
        return self.curves.losses(self.theta)


class Constraint:
    """Predicts whether points satisfy a constraint, from its values at evaluated points."""

    def __init__(self, counts: NDArray[np.int64], points: Points, values: Array) -> None:
        """values: (n,), zero or less if the constraint is satisfied."""
        self._scale = np.maximum(counts - 1, 1)
        features = self._features(points)
        finite = np.abs(values[np.isfinite(values)])
        typical = max(float(np.median(finite)) if len(finite) else 1.0, 1e-12)
        bounded = np.clip(values, -3 * typical, 3 * typical) / typical  # outliers: signs
        self._process = Process(features, features, bounded)

    def _features(self, points: Points) -> Array:
        """Levels, with a constant in place of the size."""
        return np.hstack([points / self._scale, np.ones((len(points), 1))])

    def probability(self, points: Points) -> Array:
        """Probability (points,) that the constraint is satisfied."""
        features = self._features(points)
        mean, deviation = self._process.predict(features, features)
        return np.asarray(ndtr(-mean / deviation), dtype=float)
