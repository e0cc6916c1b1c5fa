"""Shapley values of a forest over few widths: exact, and as fast as a matrix product.

A forest over bits is a function on the grid of widths. Its path-dependent expectations (Lundberg
et al. 2020, algorithm 1: what shap.TreeExplainer computes without background data) are products
over parts, because a leaf is a box: so the values of *all* subsets of parts at *all* widths are
one table, a sum of outer products over the leaves. Shapley values, interaction values and
predictions are looked up in it. With three parts of eight widths it has 9^3 cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import factorial
from typing import Any

import numpy as np

MAX_CELLS = 20_000  # above that `explain` is the faster one
ROWS = 128  # configurations explained at a time
CHUNK = 4_000_000  # numbers in memory at a time


@dataclass(frozen=True, slots=True, eq=False)
class Expectations:
    """Expected predictions; cells: (1 + widths of part 0, ...), where index 0 is "unknown"."""

    levels: tuple[np.ndarray, ...]
    cells: np.ndarray

    def index(self, bits: np.ndarray) -> np.ndarray:
        """Indices (n, parts) of configurations with known widths."""
        positions = [np.searchsorted(w, bits[:, j]) for j, w in enumerate(self.levels)]
        return np.stack(positions, axis=1) + 1

    def at(self, index: np.ndarray) -> np.ndarray:
        """Expected predictions (n,)."""
        result: np.ndarray = self.cells[tuple(index.T)]
        return result

    def subsets(self, index: np.ndarray) -> np.ndarray:
        """Expected predictions (2^parts, n) where the parts of a bit mask are known."""
        parts = index.shape[1]
        masks = (np.arange(2**parts)[:, None] >> np.arange(parts)) & 1
        return np.stack([self.at(index * mask) for mask in masks])


def cell_count(bits: np.ndarray) -> int:
    """How many cells the table of these configurations' widths has."""
    return int(np.prod([len(np.unique(column)) + 1 for column in bits.T], dtype=float))


def expectations(forest: Any, bits: np.ndarray) -> Expectations:
    """The table of a fitted sklearn forest over the widths in bits (n, parts)."""
    levels = tuple(np.unique(column) for column in bits.T)
    values, weights = _leaves(forest, levels)
    sizes = [len(widths) + 1 for widths in levels]
    starts = np.cumsum([0, *sizes])
    factors = [weights[:, a:b] for a, b in pairwise(starts)]
    cells = np.zeros(int(np.prod(sizes)))
    step = max(1, CHUNK // max(1, len(cells) // sizes[-1]))
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        product = values[part, None]
        for factor in factors[:-1]:
            product = (product[:, :, None] * factor[part, None, :]).reshape(len(product), -1)
        cells += (product.T @ factors[-1][part]).reshape(-1)
    return Expectations(levels, cells.reshape(sizes))


def _leaves(forest: Any, levels: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Values of all leaves (l,) and their factors (l, states), side by side for all parts.

    A factor is 1 if the width leads to the leaf, 0 if it does not, and for an unknown width the
    share of training rows that went this way. All trees descend together, one level at a time.
    """
    trees = [estimator.tree_ for estimator in forest.estimators_]
    starts = np.cumsum([0] + [tree.node_count for tree in trees])[:-1]
    left = _joined(trees, "children_left", starts)
    right = _joined(trees, "children_right", starts)
    feature = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    cover = np.concatenate([tree.weighted_n_node_samples for tree in trees])
    value = np.concatenate([tree.value[:, 0, 0] for tree in trees]) / len(trees)
    parts = np.concatenate([np.full(len(w) + 1, j) for j, w in enumerate(levels)])
    width = np.concatenate([np.concatenate([[np.nan], w]) for w in levels])
    nodes, weights = starts, np.ones((len(trees), len(parts)))
    leaf_values, leaf_weights = [], []
    while len(nodes):
        leaf = feature[nodes] < 0
        leaf_values.append(value[nodes[leaf]])
        leaf_weights.append(weights[leaf])
        nodes, weights = nodes[~leaf], weights[~leaf]
        splits = parts == feature[nodes, None]
        share = (cover[left[nodes]] / cover[nodes])[:, None]
        goes = np.where(np.isnan(width), share, width <= threshold[nodes, None])
        to_left = weights * np.where(splits, goes, 1.0)
        to_right = weights * np.where(splits, 1.0 - goes, 1.0)
        nodes = np.concatenate([left[nodes], right[nodes]])
        weights = np.concatenate([to_left, to_right])
    return np.concatenate(leaf_values), np.concatenate(leaf_weights)


def _joined(trees: Sequence[Any], name: str, starts: np.ndarray) -> np.ndarray:
    """Children of all trees' nodes, numbered consecutively."""
    return np.concatenate(
        [getattr(tree, name) + start for tree, start in zip(trees, starts, strict=True)]
    )


def explain(
    forest: Any, bits: np.ndarray, rows: np.ndarray, pairs: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Shapley values (n, parts) of rows and, with `pairs`, interaction values (n, parts, parts).

    bits: what the forest was fitted to. A leaf's game is a product over its d parts, whose Shapley
    value is the integral over t from 0 to 1 of (a_i - b_i) prod_{j != i} (t a_j + (1 - t) b_j),
    with a the factor of the known width and b that of an unknown one (Owen's multilinear
    extension): a polynomial of degree d - 1, which Gauss-Legendre integrates without error.
    """
    levels = tuple(np.unique(column) for column in bits.T)
    values, weights = _leaves(forest, levels)
    starts = np.cumsum([0] + [len(widths) + 1 for widths in levels])
    positions = [np.searchsorted(w, rows[:, j]) for j, w in enumerate(levels)]
    columns = np.stack(positions, axis=1) + 1 + starts[:-1]
    unknown = np.repeat(weights[:, starts[:-1]], np.diff(starts), axis=1)
    order = (np.count_nonzero(weights[:, starts[:-1]] < 1, axis=1) + 1) // 2
    phi = np.zeros(columns.shape)
    both = np.zeros((*columns.shape, columns.shape[1])) if pairs else None
    for count in np.unique(order[order > 0]):
        some = order == count
        leaves = values[some], weights[some], unknown[some]
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            _integrate(leaves, columns[part], int(count), phi[part],
                       None if both is None else both[part])  # fmt: skip
    if both is not None:
        diagonal = np.arange(columns.shape[1])
        both[:, diagonal, diagonal] = 0
        both[:, diagonal, diagonal] = phi - both.sum(axis=2)
    return phi, both


def _integrate(
    leaves: tuple[np.ndarray, np.ndarray, np.ndarray],
    columns: np.ndarray,
    count: int,
    phi: np.ndarray,
    both: np.ndarray | None,
) -> None:
    """Add these leaves' integrals to phi (n, parts) and both (n, parts, parts)."""
    values, weights, unknown = leaves
    points, shares = np.polynomial.legendre.leggauss(count)
    selected = np.zeros((len(columns), weights.shape[1]))
    np.put_along_axis(selected, columns, 1.0, axis=1)
    for point, share in zip((points + 1) / 2, shares / 2, strict=True):
        factor = point * weights + (1 - point) * unknown  # positive: unknown is, and point < 1
        product = np.exp(np.log(factor) @ selected.T) * (share * values)[:, None]
        slope = (weights - unknown) / factor
        phi += np.take_along_axis(product.T @ slope, columns, axis=1)
        if both is not None:
            for row, places in enumerate(columns):
                own = slope[:, places]
                both[row] += own.T @ (own * product[:, row, None]) / 2


def shapley_values(subsets: np.ndarray) -> np.ndarray:
    """Shapley values (n, parts) from expectations of all subsets (2^parts, n)."""
    parts = len(subsets).bit_length() - 1
    values = np.zeros((subsets.shape[1], parts))
    for mask in range(len(subsets)):
        size = mask.bit_count()
        for j in range(parts):
            if not mask >> j & 1:
                weight = factorial(size) * factorial(parts - size - 1) / factorial(parts)
                values[:, j] += weight * (subsets[mask | 1 << j] - subsets[mask])
    return values


def interaction_values(subsets: np.ndarray) -> np.ndarray:
    """SHAP interaction values (n, parts, parts) from expectations of all subsets (2^parts, n).

    As in Lundberg et al. 2020: a pair's effect is split evenly between (i, j) and (j, i), the
    diagonal has the rest of a part's Shapley value.
    """
    parts = len(subsets).bit_length() - 1
    values = np.zeros((subsets.shape[1], parts, parts))
    for mask in range(len(subsets)):
        for i in range(parts):
            for j in range(i):
                a, b = 1 << i, 1 << j
                if mask & (a | b):
                    continue
                size = mask.bit_count()
                weight = factorial(size) * factorial(parts - size - 2) / factorial(parts - 1) / 2
                joint = subsets[mask | a | b] - subsets[mask | a] - subsets[mask | b]
                values[:, i, j] += weight * (joint + subsets[mask])
    values += values.transpose(0, 2, 1)
    diagonal = np.arange(parts)
    values[:, diagonal, diagonal] = shapley_values(subsets) - values.sum(axis=2)
    return values
