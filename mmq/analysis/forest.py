"""One random forest: its held-out R², and three measures of importance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmq.analysis.shapley import (
    MAX_CELLS,
    cell_count,
    expectations,
    explain,
    interaction_values,
    shapley_values,
)

FOLDS, FOLD_REPEATS = 5, 4
SHAP_ROWS = 64  # configurations that a resample's forest explains if there are many parts
PAIR_ROWS = 128  # configurations whose interactions are explained if there are many parts
LARGE = 1000  # with many parts and more configurations than this, the limits below apply
LARGE_ROWS, LARGE_PAIR_ROWS = 256, 32  # explained configurations
LARGE_TREES, LARGE_SAMPLE = 20, 500  # trees of a resample's forest, configurations per tree


@dataclass(frozen=True, slots=True)
class HeldOut:
    """R^2 on held-out configurations: mean, minimum and maximum over repeated splits."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One forest's measures, not normalized.

    impurity: (parts,). permutation: (repeats, parts), the increase of the mean squared error,
    which is the drop of R^2 times the variance. shap: (parts,), mean |phi_j|. interactions:
    (parts, parts), mean |phi_ij|; None for resamples with many parts.
    """

    impurity: np.ndarray
    permutation: np.ndarray
    shap: np.ndarray
    interactions: np.ndarray | None


def fit(
    bits: np.ndarray, target: np.ndarray, trees: int, seed: int, most: int | None = None
) -> Any:
    """The paper's regressor: fully grown trees, all parts tried at every split.

    most: configurations that each tree samples; None: as many as there are.
    """
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(n_estimators=trees, random_state=seed, max_samples=most)
    return forest.fit(bits, target)


def held_out(bits: np.ndarray, target: np.ndarray, trees: int, seed: int) -> list[HeldOut]:
    """R^2 of the forest and of a linear model on configurations that they were not fitted to."""
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold

    scores = []
    for repeat in range(1 if is_large(bits) else FOLD_REPEATS):
        predicted = np.empty((2, len(target)))
        splits = KFold(FOLDS, shuffle=True, random_state=seed + repeat).split(bits)
        for train, test in splits:
            forest = fit(bits[train], target[train], trees, seed + repeat)
            linear = LinearRegression().fit(bits[train], target[train])
            predicted[:, test] = forest.predict(bits[test]), linear.predict(bits[test])
        scores.append([r2_score(target, values) for values in predicted])
    return [
        HeldOut(float(np.mean(values)), float(min(values)), float(max(values)))
        for values in zip(*scores, strict=True)
    ]


def measure(
    bits: np.ndarray,
    target: np.ndarray,
    trees: int,
    repeats: int,
    seed: int,
    rows: int | None = None,
) -> Measured:
    """Fit a forest and measure importances; rows: how many to explain if there are many parts.

    All measures use the configurations that the forest was fitted to, as in the paper.
    """
    resampled = rows is not None
    if resampled and is_large(bits):
        forest = fit(bits, target, min(trees, LARGE_TREES), seed, LARGE_SAMPLE)
    else:
        forest = fit(bits, target, trees, seed)
    rng = np.random.default_rng(seed)
    impurity = np.asarray(forest.feature_importances_)
    if many_parts(bits):
        predict = forest.predict
        permutation = _permuted(predict, bits, target, repeats, rng, one_by_one=False)
        shap, interactions = _explained(forest, bits, rows, rng)
        return Measured(impurity, permutation, shap, interactions)
    table = expectations(forest, bits)
    index = table.index(bits)
    subsets = table.subsets(index)
    return Measured(
        impurity=impurity,
        permutation=_permuted(table.at, index, target, repeats, rng),
        shap=np.abs(shapley_values(subsets)).mean(axis=0),
        interactions=np.abs(interaction_values(subsets)).mean(axis=0),
    )


def _permuted(
    predict: Callable[[np.ndarray], np.ndarray],
    rows: np.ndarray,
    target: np.ndarray,
    repeats: int,
    rng: np.random.Generator,
    one_by_one: bool = True,
) -> np.ndarray:
    """Permutation importances (repeats, parts); rows (n, parts) are what `predict` takes.

    one_by_one=False is for slow predictions: a part has few widths, so each row is predicted once
    with each of them, and permutations are looked up.
    """
    base = np.mean((predict(rows) - target) ** 2)
    rises = np.empty((repeats, rows.shape[1]))
    for part in range(rows.shape[1]):
        shuffled = rng.permuted(np.tile(rows[:, part], (repeats, 1)), axis=1)
        widths = np.unique(rows[:, part])
        if one_by_one or len(widths) >= repeats:
            predicted = predict(_with(rows, part, shuffled)).reshape(repeats, -1)
        else:
            every = predict(_with(rows, part, np.repeat(widths[:, None], len(rows), axis=1)))
            index = np.searchsorted(widths, shuffled)
            predicted = every.reshape(len(widths), -1)[index, np.arange(len(rows))]
        errors = (predicted - target) ** 2
        rises[:, part] = errors.mean(axis=1) - base
    return rises


def _with(rows: np.ndarray, part: int, widths: np.ndarray) -> np.ndarray:
    """The rows repeated with the part at each of these widths, (times, n)."""
    mixed = np.tile(rows, (len(widths), 1))
    mixed[:, part] = widths.reshape(-1)
    return mixed


def is_large(bits: np.ndarray) -> bool:
    """Whether there are so many configurations of many parts that the limits apply."""
    return len(bits) > LARGE and many_parts(bits)


def many_parts(bits: np.ndarray) -> bool:
    """Whether these configurations have too many parts and widths for a table of all of them."""
    return cell_count(bits) > MAX_CELLS


def _explained(
    forest: Any, bits: np.ndarray, rows: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean |phi_j| and, if rows is None, mean |phi_ij| of some configurations."""
    if rows is not None:
        values, _ = explain(forest, bits, _some(bits, rows, rng))
        return np.abs(values).mean(axis=0), None
    large = is_large(bits)
    values, _ = explain(forest, bits, _some(bits, LARGE_ROWS, rng) if large else bits)
    some = _some(bits, LARGE_PAIR_ROWS if large else PAIR_ROWS, rng)
    _, pairs = explain(forest, bits, some, pairs=True)
    assert pairs is not None
    return np.abs(values).mean(axis=0), np.abs(pairs).mean(axis=0)


def _some(bits: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    """At most `rows` of the configurations, drawn at random."""
    return bits[rng.permutation(len(bits))[:rows]]
