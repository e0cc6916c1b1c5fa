"""One random forest: how well it predicts, and what it says each part is worth, in three ways."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmq.analysis.shapley import (
    MAX_CELLS,
    Expectations,
    cell_count,
    expectations,
    interaction_values,
    shapley_values,
)
from mmq.errors import InputError

FOLDS, FOLD_REPEATS = 5, 4
SHAP_ROWS = 128  # rows that a resample's forest of many parts explains


@dataclass(frozen=True, slots=True)
class HeldOut:
    """R^2 on held-out configurations: the mean over repeated splits, the least and the most."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one forest says, not normalized; shap and interactions are None where shap is missing.

    impurity: (parts,). permutation: (repeats, parts), the rise of the mean squared error, which is
    the drop of R^2 times the variance. shap: (parts,), mean |phi_j|. interactions: (parts, parts),
    mean |phi_ij|.
    """

    impurity: np.ndarray
    permutation: np.ndarray
    shap: np.ndarray | None
    interactions: np.ndarray | None


def fit(bits: np.ndarray, target: np.ndarray, trees: int, seed: int) -> Any:
    """The paper's regressor: fully grown trees, all parts tried at every split."""
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(n_estimators=trees, random_state=seed).fit(bits, target)


def held_out(bits: np.ndarray, target: np.ndarray, trees: int, seed: int) -> list[HeldOut]:
    """R^2 of the forest and of a linear model on configurations that they were not fitted to."""
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold

    scores = []
    for repeat in range(FOLD_REPEATS):
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
    """Fit a forest and ask it; rows: how many TreeExplainer explains, where there are many parts.

    All three ways look at the configurations that the forest was fitted to, as in the paper.
    """
    forest = fit(bits, target, trees, seed)
    rng = np.random.default_rng(seed)
    impurity = np.asarray(forest.feature_importances_)
    if cell_count(bits) > MAX_CELLS:
        permutation = _permuted(forest, bits, target, repeats, rng)
        shap, interactions = _explained(forest, bits, rows, rng)
        return Measured(impurity, permutation, shap, interactions)
    table = expectations(forest, bits)
    index = table.index(bits)
    subsets = table.subsets(index)
    return Measured(
        impurity=impurity,
        permutation=_looked_up(table, index, target, repeats, rng),
        shap=np.abs(shapley_values(subsets)).mean(axis=0),
        interactions=np.abs(interaction_values(subsets)).mean(axis=0),
    )


def _looked_up(
    table: Expectations,
    index: np.ndarray,
    target: np.ndarray,
    repeats: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Permutation importances (repeats, parts); predictions are looked up."""
    base = np.mean((table.at(index) - target) ** 2)
    rises = np.empty((repeats, index.shape[1]))
    for part in range(index.shape[1]):
        mixed = np.tile(index, (repeats, 1))
        mixed[:, part] = rng.permuted(np.tile(index[:, part], (repeats, 1)), axis=1).reshape(-1)
        errors = (table.at(mixed).reshape(repeats, -1) - target) ** 2
        rises[:, part] = errors.mean(axis=1) - base
    return rises


def _permuted(
    forest: Any, bits: np.ndarray, target: np.ndarray, repeats: int, rng: np.random.Generator
) -> np.ndarray:
    """Permutation importances (repeats, parts); the forest predicts."""
    base = np.mean((forest.predict(bits) - target) ** 2)
    rises = np.empty((repeats, bits.shape[1]))
    for part in range(bits.shape[1]):
        mixed = np.tile(bits, (repeats, 1))
        mixed[:, part] = rng.permuted(np.tile(bits[:, part], (repeats, 1)), axis=1).reshape(-1)
        errors = (forest.predict(mixed).reshape(repeats, -1) - target) ** 2
        rises[:, part] = errors.mean(axis=1) - base
    return rises


def require_shap() -> Any:
    """The shap package; InputError that names the extra where it is missing."""
    try:
        import shap
    except ImportError as error:
        raise InputError("SHAP of so many parts needs pip install 'mmq[analysis]'") from error
    return shap


def needs_shap(bits: np.ndarray) -> bool:
    """Whether these configurations have too many parts and widths for the exact table."""
    return cell_count(bits) > MAX_CELLS


def _explained(
    forest: Any, bits: np.ndarray, rows: int | None, rng: np.random.Generator
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Mean |phi_j| and, where all rows are asked for, mean |phi_ij| by TreeExplainer."""
    try:
        explainer = require_shap().TreeExplainer(forest)
    except InputError:
        return None, None
    if rows is not None and len(bits) > rows:
        bits = bits[rng.choice(len(bits), rows, replace=False)]
    values = np.abs(explainer.shap_values(bits, check_additivity=False)).mean(axis=0)
    if rows is not None:
        return values, None
    return values, np.abs(explainer.shap_interaction_values(bits)).mean(axis=0)
