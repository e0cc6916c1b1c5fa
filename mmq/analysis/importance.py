"""How much each part matters for the score, by three measures, and how sure the order is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from mmq.analysis.forest import (
    FOLDS,
    LARGE_ROWS,
    LARGE_SAMPLE,
    LARGE_TREES,
    SHAP_ROWS,
    HeldOut,
    Measured,
    held_out,
    is_large,
    many_parts,
    measure,
)
from mmq.analysis.settings import DEFAULTS, Settings
from mmq.analysis.shares import interval, normalized, percent
from mmq.analysis.table import Table, log_loss, reference_row, resampled_scores
from mmq.errors import InputError

MEASURES = ("impurity", "permutation", "shap")
SCALES = ("score", "log-loss")
MIN_R2 = 0.1  # minimum R^2 on held-out configurations; below, importances are noise
MIN_ROWS = 12
ROWS_PER_PART = 5  # minimum number of configurations per varying part
SURE = 0.95  # share of resamples that must agree on an order
FEW_REPEATS = 5  # permutations per resample if predictions cannot be looked up


@dataclass(frozen=True, slots=True)
class Share:
    """Percent of the importance with its 95% interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """Which of two parts matters more, and the share of resamples that agree.

    agreement: by what was resampled (configurations; samples, if there are any).
    """

    first: str
    second: str
    agreement: Mapping[str, float]

    @property
    def separable(self) -> bool:
        """Whether at least 95% of every kind of resamples agree."""
        return all(share >= SURE for share in self.agreement.values())


@dataclass(frozen=True, slots=True)
class Interaction:
    """Mean |phi_ij| of two parts in the target's unit.

    The 95% interval is the spread of the resamples around their own mean, shifted to the value.
    """

    first: str
    second: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Importances on one scale, or the reason why there are none.

    shares: percent by measure ("impurity", "permutation", "shap", "consensus") and part, intervals
    over resampled configurations. sampled: the same over resampled pictures; empty without
    samples. repeats: permutation's intervals over its own repeats. resamples: percent by kind,
    (n, measures, parts), for plots; the measures are those of `measures`.
    """

    table: Table
    scale: str
    reason: str = ""
    forest: HeldOut | None = None
    linear: HeldOut | None = None
    shares: Mapping[str, Mapping[str, Share]] = field(default_factory=dict)
    sampled: Mapping[str, Mapping[str, Share]] = field(default_factory=dict)
    repeats: Mapping[str, Share] = field(default_factory=dict)
    orders: Sequence[Order] = ()
    interactions: Sequence[Interaction] = ()
    resamples: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def measures(self) -> tuple[str, ...]:
        """The available measures, the consensus last."""
        return tuple(self.shares)

    @property
    def consensus(self) -> Mapping[str, Share]:
        """Percent by part, the largest first."""
        shares = self.shares.get("consensus", {})
        return dict(sorted(shares.items(), key=lambda item: -item[1].value))


def rank(table: Table, scale: str = "score", settings: Settings = DEFAULTS) -> Ranking:
    """Rank the table's parts on a scale: "score", or "log-loss" (see `log_loss`).

    The result has a reason instead of importances if there is nothing to rank or the forest does
    not predict held-out configurations.
    """
    if table.n == 0:
        return Ranking(table, scale, "there are no configurations")
    parts = table.varying
    notes = tuple(
        f"{part} is constant ({table.bits[0, k]:g} bits): its importance is 0"
        for k, part in enumerate(table.parts)
        if part not in parts
    )
    reference = reference_row(table)
    target = _target(table.scores, scale, reference)
    if scale == "log-loss" and reference is None:
        notes += ("the configuration with every part at its widest is missing: losses are "
                  "against the best score",)  # fmt: skip
    if reason := _nothing_to_rank(table, parts, target):
        return Ranking(table, scale, reason, notes=notes)
    bits = _columns(table, parts)
    forest, linear = held_out(bits, target, settings.trees, settings.seed)
    if forest.value < MIN_R2:
        reason = (
            f"the forest does not predict held-out configurations (R² {forest.value:.2f}, "
            f"at least {MIN_R2} is needed)"
        )
        return Ranking(table, scale, reason, forest, linear, notes=notes)
    if is_large(bits):
        notes += (
            f"with {table.n} configurations, SHAP values are computed on {LARGE_ROWS} of them; "
            f"resamples have at most {LARGE_TREES} trees of {LARGE_SAMPLE} configurations each, "
            f"and intervals are their spread around the value",
        )
    measured, resampled = _resample(table, bits, target, scale, settings)
    return _ranking(table, scale, parts, (forest, linear), measured, resampled, notes)


def _target(scores: np.ndarray, scale: str, reference: int | None) -> np.ndarray:
    if scale not in SCALES:
        raise InputError(f"scale: {scale!r} is not one of {', '.join(SCALES)}")
    return scores if scale == "score" else log_loss(scores, reference)


def _columns(table: Table, parts: Sequence[str]) -> np.ndarray:
    """Bits (n, parts) of the parts that vary."""
    return table.bits[:, [table.parts.index(part) for part in parts]]


def _nothing_to_rank(table: Table, parts: Sequence[str], target: np.ndarray) -> str:
    """Why there is nothing to rank; "" if there may be."""
    if not parts:
        return f"no part varies over the {table.n} configurations"
    least = max(MIN_ROWS, ROWS_PER_PART * len(parts), 2 * FOLDS)
    if table.n < least:
        return (
            f"{table.n} configurations are too few to rank {len(parts)} parts; at least {least} "
            f"are needed"
        )
    if np.ptp(target) <= 1e-9 * max(1.0, float(np.abs(target).max())):
        return f"all {table.n} configurations score the same"
    return ""


def _resample(
    table: Table, bits: np.ndarray, target: np.ndarray, scale: str, settings: Settings
) -> tuple[Measured, dict[str, list[Measured]]]:
    """Measures of the forest of all configurations, and of all resamples, by kind."""
    repeats, rows = settings.repeats, None
    if many_parts(bits):
        repeats, rows = min(1 if is_large(bits) else FEW_REPEATS, repeats), SHAP_ROWS
    reference = reference_row(table)
    draws: list[tuple[str, np.ndarray, np.ndarray]] = []
    rng = np.random.default_rng(settings.seed)
    for _ in range(settings.bootstrap):
        indices = rng.integers(0, table.n, table.n)
        draws.append(("configurations", bits[indices], target[indices]))
    if table.has_samples:
        for _ in range(settings.bootstrap):
            scores = resampled_scores(table, rng)
            draws.append(("samples", bits, _target(scores, scale, reference)))
    tasks: list[tuple[Any, ...]] = [
        (bits, target, settings.trees, settings.repeats, settings.seed, None)
    ]
    tasks += [
        (b, y, settings.trees, repeats, settings.seed + 1 + k, rows)
        for k, (_, b, y) in enumerate(draws)
    ]
    label = " ".join(text for text in (table.name, scale) if text)
    first, *rest = _in_parallel(tasks, settings, label)
    resampled: dict[str, list[Measured]] = {}
    for (kind, _, _), measured in zip(draws, rest, strict=True):
        resampled.setdefault(kind, []).append(measured)
    return first, resampled


def _in_parallel(tasks: Sequence[Any], settings: Settings, label: str) -> list[Measured]:
    """`measure` of all tasks, in their order."""
    from sklearn.utils.parallel import Parallel, delayed

    from mmq.system.progress import progress_bar

    workers = Parallel(n_jobs=settings.jobs or -1, return_as="generator")
    results = workers(delayed(measure)(*task) for task in tasks)
    return list(
        progress_bar(results, desc=label, total=len(tasks), unit="forest", quiet=settings.quiet)
    )


def _ranking(
    table: Table,
    scale: str,
    parts: Sequence[str],
    r2: tuple[HeldOut, HeldOut],
    measured: Measured,
    resampled: Mapping[str, Sequence[Measured]],
    notes: tuple[str, ...],
) -> Ranking:
    point = percent(measured)
    names = [*MEASURES, "consensus"]
    draws = {kind: np.stack([percent(m) for m in values]) for kind, values in resampled.items()}
    if is_large(_columns(table, parts)):  # smaller forests have different means
        draws = {
            k: np.maximum(values + point - np.nanmean(values, axis=0), 0)
            for k, values in draws.items()
        }

    def shares(kind: str) -> dict[str, dict[str, Share]]:
        return {
            name: {part: Share(0.0, 0.0, 0.0) for part in table.parts}
            | {
                part: Share(float(point[k, j]), *interval(draws[kind][:, k, j]))
                for j, part in enumerate(parts)
            }
            for k, name in enumerate(names)
        }

    own = normalized(measured.permutation)
    repeats = {
        part: Share(float(point[1, j]), *interval(own[:, j])) for j, part in enumerate(parts)
    }
    full = {kind: _with_constants(table, parts, values) for kind, values in draws.items()}
    return Ranking(
        table=table, scale=scale, forest=r2[0], linear=r2[1], shares=shares("configurations"),
        sampled=shares("samples") if "samples" in draws else {}, repeats=repeats,
        orders=_orders(parts, point[-1], {kind: values[:, -1] for kind, values in draws.items()}),
        interactions=_interactions(parts, measured, resampled["configurations"]),
        resamples=full, notes=notes,
    )  # fmt: skip


def _with_constants(table: Table, parts: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Percent (n, measures, all parts): zeros for those that never vary."""
    full = np.zeros((*values.shape[:2], len(table.parts)))
    full[:, :, [table.parts.index(part) for part in parts]] = values
    return full


def _orders(
    parts: Sequence[str], point: np.ndarray, draws: Mapping[str, np.ndarray]
) -> list[Order]:
    """Every pair of parts, the one with the larger consensus first; ties count half."""
    orders = []
    for i, j in combinations(np.argsort(-point, kind="stable"), 2):
        agreement = {}
        for kind, values in draws.items():
            ahead = values[:, i] - values[:, j]
            ahead = ahead[np.isfinite(ahead)]
            agreement[kind] = float(np.mean((ahead > 0) + 0.5 * (ahead == 0)))
        orders.append(Order(parts[i], parts[j], agreement))
    return orders


def _interactions(
    parts: Sequence[str], measured: Measured, resampled: Sequence[Measured]
) -> list[Interaction]:
    """Mean |phi_ij| of every pair, the largest first."""
    if measured.interactions is None:
        return []
    samples = [pair.interactions for pair in resampled if pair.interactions is not None]
    interactions = []
    for i, j in combinations(range(len(parts)), 2):
        value = float(measured.interactions[i, j])
        low = high = None
        if samples:
            # a resample lacks a third of the configurations, and a forest that extrapolates to
            # them interacts more, so only the spread around its own mean is used
            draws = np.array([pair[i, j] for pair in samples])
            low, high = (max(0.0, value + end - draws.mean()) for end in interval(draws))
        interactions.append(Interaction(parts[i], parts[j], value, low, high))
    return sorted(interactions, key=lambda pair: -pair.value)
