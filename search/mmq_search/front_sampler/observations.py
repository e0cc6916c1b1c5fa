"""A study's trials as points of a grid, with sizes to minimize and scores to maximize."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mmq_search.front_sampler.grid import Grid, Points
from mmq_search.optuna_internals import enqueued_params, proposal, set_proposal

Array = NDArray[np.float64]


def _additive(study: Study, grid: Grid) -> int:
    """Index of the objective that is closer to a sum over the levels' numbers."""
    trials = [
        t
        for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if grid.levels.keys() <= t.params.keys()
    ]
    if len(trials) < len(grid.levels) + 2:
        return 0
    points = np.array([grid.encode(trial.params) for trial in trials])
    numbers = [column[points[:, d]] for d, column in enumerate(grid.numbers())]
    features = np.stack([np.ones(len(points)), *numbers], axis=1)
    errors = []
    for k in range(2):
        values = np.array([trial.values[k] for trial in trials], dtype=float)
        weights = np.linalg.lstsq(features, values, rcond=None)[0]
        errors.append(np.std(features @ weights - values) / max(np.std(values), 1e-300))
    return int(np.argmin(errors))


@dataclass(frozen=True, slots=True)
class Objectives:
    """Index of the size, and the signs that make small sizes and high scores good."""

    size: int
    size_sign: float
    score_sign: float

    @classmethod
    def of(cls, study: Study, size: int | None, grid: Grid) -> "Objectives":
        """ValueError for a study without exactly two objectives.

        size: its index; by default the only objective that is minimized or, of two in one
        direction, the one that is closer to a sum over the parameters.
        """
        if len(study.directions) != 2:
            raise ValueError(
                f"FrontSampler needs two objectives, size and score, not {len(study.directions)}; "
                f'create the study with directions=["minimize", "maximize"]'
            )
        minimized = [d == StudyDirection.MINIMIZE for d in study.directions]
        if size is None:
            size = minimized.index(True) if sum(minimized) == 1 else _additive(study, grid)
        return cls(size, 1.0 if minimized[size] else -1.0, -1.0 if minimized[1 - size] else 1.0)


@dataclass(frozen=True, slots=True)
class Observations:
    """Evaluated points with their sizes (small is good), scores (high is good) and constraints.

    points: without duplicates, whose scores are averaged; the size is nan if no trial returned it.
    pending: points that other processes are evaluating. failed: points that ended without a score
    and are not enqueued again. attempts: all points that were started. excluded: all points that
    are not proposed again, which are the attempts and the enqueued points.
    """

    points: Points
    sizes: Array
    scores: Array
    constraints: dict[str, Array]  # nan if a trial did not set it
    pending: Points
    failed: Points
    attempts: set[tuple[int, ...]]
    excluded: set[tuple[int, ...]]

    @classmethod
    def of(
        cls, trials: Iterable[FrozenTrial], grid: Grid, objectives: Objectives
    ) -> "Observations":
        """From a study's trials."""
        values: dict[tuple[int, ...], list[tuple[float, float]]] = {}
        limits: dict[tuple[int, ...], dict[str, float]] = {}
        pending, attempts, excluded, waiting = (set[tuple[int, ...]]() for _ in range(4))
        for trial in trials:
            params = _expected(trial)
            if not grid.levels.keys() <= params.keys():
                continue
            point = grid.encode(params)
            excluded.add(point)
            (waiting if trial.state == TrialState.WAITING else attempts).add(point)
            if trial.state == TrialState.RUNNING:
                pending.add(point)
            elif (pair := _values(trial, objectives)) is not None:
                values.setdefault(point, []).append(pair)
                limits[point] = trial.constraints
        points = list(values)
        means = np.array([np.mean(values[p], axis=0) for p in points]).reshape(-1, 2)
        names = sorted({name for limit in limits.values() for name in limit})
        return cls(
            _array(points, grid),
            means[:, 0],
            means[:, 1],
            {n: np.array([limits[p].get(n, np.nan) for p in points]) for n in names},
            _array(sorted(pending - values.keys()), grid),
            _array(sorted(attempts - values.keys() - pending - waiting), grid),
            attempts,
            excluded,
        )

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Which points satisfy all their constraints."""
        feasible = np.ones(len(self.points), dtype=bool)
        for column in self.constraints.values():
            feasible &= ~(column > 0)
        return feasible


def claim(study: Study, trial: FrozenTrial, params: Mapping[str, Any]) -> bool:
    """Show other processes what a trial's parameters will be; False if one has the same.

    Processes propose at the same time. Each looks again after it has written its own proposal, so
    at least the last one sees a conflict; two that see each other both propose again.
    """

    def taken() -> bool:
        trials = study.get_trials(deepcopy=False)
        return any(t.number != trial.number and _has(t, params) for t in trials)

    if taken():
        return False
    set_proposal(study, trial, params)
    return not taken()


def suggested(study: Study) -> dict[str, BaseDistribution]:
    """The search space of the trials with the most parameters, finished or not."""
    spaces = [trial.distributions for trial in study.get_trials(deepcopy=False)]
    most = max((len(space) for space in spaces), default=0)
    first, *others = [space for space in spaces if len(space) == most] or [{}]
    return {n: d for n, d in sorted(first.items()) if all(o.get(n) == d for o in others)}


def _expected(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's parameters, with those that are proposed or enqueued but not suggested yet."""
    return {**proposal(trial), **enqueued_params(trial), **trial.params}


def _has(trial: FrozenTrial, params: Mapping[str, Any]) -> bool:
    return params.items() <= _expected(trial).items()


def _array(points: list[tuple[int, ...]], grid: Grid) -> Points:
    return np.array(points, dtype=np.int64).reshape(-1, len(grid.levels))


def _values(trial: FrozenTrial, objectives: Objectives) -> tuple[float, float] | None:
    """Size and score of a finished trial; the partial score, without a size, of a pruned one."""
    if trial.state == TrialState.COMPLETE:
        size, score = trial.values[objectives.size], trial.values[1 - objectives.size]
    elif trial.state == TrialState.PRUNED:
        partial = trial.user_attrs.get("partial")
        score = partial.get("score") if isinstance(partial, dict) else None
        size = np.nan
    else:
        return None
    if not isinstance(score, int | float) or not np.isfinite(score):
        return None
    return objectives.size_sign * size, objectives.score_sign * score
