"""One random forest: how well it predicts, and what it says each part is worth, in three ways."""

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
SHAP_ROWS = 64  # configurations that a resample's forest of many parts explains
PAIR_ROWS = 128  # those whose interactions are explained, where there are many parts
LARGE = 1000  # configurations of many parts; beyond, what follows bounds the work
LARGE_ROWS, LARGE_PAIR_ROWS = 256, 32  # explained there
LARGE_TREES, LARGE_SAMPLE = 20, 500  # of a resample's forest there: trees, configurations of each


@dataclass(frozen=True, slots=True)
class HeldOut:
    """R^2 on held-out configurations: the mean over repeated splits, the least and the most."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one forest says, not normalized.

    impurity: (parts,). permutation: (repeats, parts), the rise of the mean squared error, which is
    the drop of R^2 times the variance. shap: (parts,), mean |phi_j|. interactions: (parts, parts),
    mean |phi_ij|; None where a resample's are left out because there are many parts.
    """

    impurity: np.ndarray
    permutation: np.ndarray
    shap: np.ndarray
    interactions: np.ndarray | None


def fit(
    bits: np.ndarray, target: np.ndarray, trees: int, seed: int, most: int | None = None
) -> Any:
    """The paper's regressor: fully grown trees, all parts tried at every split.

    most: configurations that each tree draws; None: as many as there are.
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
        for kept, left in splits:
            forest = fit(bits[kept], target[kept], trees, seed + repeat)
            linear = LinearRegression().fit(bits[kept], target[kept])
            predicted[:, left] = forest.predict(bits[left]), linear.predict(bits[left])
        scores.append([r2_score(target, each) for each in predicted])
    return [
        HeldOut(float(np.mean(each)), float(min(each)), float(max(each)))
        for each in zip(*scores, strict=True)
    ]


def measure(
    bits: np.ndarray,
    target: np.ndarray,
    trees: int,
    repeats: int,
    seed: int,
    rows: int | None = None,
) -> Measured:
    """Fit a forest and ask it; rows: how many it explains where there are many parts, or all.

    All three ways look at the configurations that the forest was fitted to, as in the paper.
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

    Where that is slow, not one by one: a part has few widths, so each row is predicted once with
    each of them, and permutations are looked up.
    """
    base = np.mean((predict(rows) - target) ** 2)
    rises = np.empty((repeats, rows.shape[1]))
    for part in range(rows.shape[1]):
        drawn = rng.permuted(np.tile(rows[:, part], (repeats, 1)), axis=1)
        widths = np.unique(rows[:, part])
        if one_by_one or len(widths) >= repeats:
            predicted = predict(_with(rows, part, drawn)).reshape(repeats, -1)
        else:
            every = predict(_with(rows, part, np.repeat(widths[:, None], len(rows), axis=1)))
            index = np.searchsorted(widths, drawn)
            predicted = every.reshape(len(widths), -1)[index, np.arange(len(rows))]
        errors = (predicted - target) ** 2
        rises[:, part] = errors.mean(axis=1) - base
    return rises


def _with(rows: np.ndarray, part: int, widths: np.ndarray) -> np.ndarray:
    """The rows again and again, the part with these widths (times, n)."""
    mixed = np.tile(rows, (len(widths), 1))
    mixed[:, part] = widths.reshape(-1)
    return mixed


def is_large(bits: np.ndarray) -> bool:
    """Whether there are so many configurations of many parts that the work is bounded."""
    return len(bits) > LARGE and many_parts(bits)


def many_parts(bits: np.ndarray) -> bool:
    """Whether these configurations have too many parts and widths for a table of all of them."""
    return cell_count(bits) > MAX_CELLS


def _explained(
    forest: Any, bits: np.ndarray, rows: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean |phi_j| and, where all rows are asked for, mean |phi_ij| of some of them."""
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
    """At most so many of the configurations."""
    return bits[rng.permutation(len(bits))[:rows]]
