"""What a study tells a sampler: its trials as points of a grid, in one direction."""

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

Array = NDArray[np.float64]
PROPOSED = "mmq:proposed"  # system attribute: what a trial's parameters will be


def _additive(study: Study, grid: Grid) -> int:
    """Which of two objectives is nearer to a sum of the levels' numbers."""
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
    missed = []
    for k in range(2):
        values = np.array([trial.values[k] for trial in trials], dtype=float)
        weights = np.linalg.lstsq(features, values, rcond=None)[0]
        missed.append(np.std(features @ weights - values) / max(np.std(values), 1e-300))
    return int(np.argmin(missed))


@dataclass(frozen=True, slots=True)
class Objectives:
    """Which objective is the size, and the factors that make small sizes, high scores good."""

    size: int
    size_sign: float
    score_sign: float

    @classmethod
    def of(cls, study: Study, size: int | None, grid: Grid) -> "Objectives":
        """ValueError for a study that has not two objectives.

        The size is the only one that is minimized; of two in one direction, the one that is more
        of a sum over the parameters.
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
class Told:
    """Points that were evaluated, with sizes (small is good), scores (high is good), constraints.

    points: each once, scores of repeats averaged; size nan where no trial told it. pending: those
    that others are evaluating. failed: that ended without a score and do not wait to be tried
    again. tried: all of these, and those that failed; seen: and that wait.
    """

    points: Points
    sizes: Array
    scores: Array
    constraints: dict[str, Array]  # nan where a trial did not set it
    pending: Points
    failed: Points
    tried: set[tuple[int, ...]]
    seen: set[tuple[int, ...]]

    @classmethod
    def by(cls, trials: Iterable[FrozenTrial], grid: Grid, aims: Objectives) -> "Told":
        """From a study's trials."""
        values: dict[tuple[int, ...], list[tuple[float, float]]] = {}
        limits: dict[tuple[int, ...], dict[str, float]] = {}
        pending, tried, seen, waiting = (set[tuple[int, ...]]() for _ in range(4))
        for trial in trials:
            params = _expected(trial)
            if not grid.levels.keys() <= params.keys():
                continue
            point = grid.encode(params)
            seen.add(point)
            (waiting if trial.state == TrialState.WAITING else tried).add(point)
            if trial.state == TrialState.RUNNING:
                pending.add(point)
            elif (found := _values(trial, aims)) is not None:
                values.setdefault(point, []).append(found)
                limits[point] = trial.constraints
        points = list(values)
        told = np.array([np.mean(values[p], axis=0) for p in points]).reshape(-1, 2)
        names = sorted({name for found in limits.values() for name in found})
        return cls(
            _array(points, grid),
            told[:, 0],
            told[:, 1],
            {n: np.array([limits[p].get(n, np.nan) for p in points]) for n in names},
            _array(sorted(pending - values.keys()), grid),
            _array(sorted(tried - values.keys() - pending - waiting), grid),
            tried,
            seen,
        )

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Which points keep to all constraints that were set for them."""
        kept = np.ones(len(self.points), dtype=bool)
        for column in self.constraints.values():
            kept &= ~(column > 0)
        return kept


def claim(study: Study, trial: FrozenTrial, params: Mapping[str, Any]) -> bool:
    """Let other processes see what a trial's parameters will be; False where one has the same.

    They choose at the same time: whoever looks last, after its own are written, sees the others'.
    Two that see each other choose again, both.
    """

    def taken() -> bool:
        trials = study.get_trials(deepcopy=False)
        return any(t.number != trial.number and _has(t, params) for t in trials)

    if taken():
        return False
    study._storage.set_trial_system_attr(trial._trial_id, PROPOSED, dict(params))
    return not taken()


def suggested(study: Study) -> dict[str, BaseDistribution]:
    """The parameters of the trials with most of them, finished or not."""
    spaces = [trial.distributions for trial in study.get_trials(deepcopy=False)]
    most = max((len(space) for space in spaces), default=0)
    first, *others = [space for space in spaces if len(space) == most] or [{}]
    return {n: d for n, d in sorted(first.items()) if all(o.get(n) == d for o in others)}


def _expected(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's parameters: what was proposed or enqueued is among them only once suggested."""
    expected = trial.system_attrs.get(PROPOSED, {})
    return {**expected, **trial.system_attrs.get("fixed_params", {}), **trial.params}


def _has(trial: FrozenTrial, params: Mapping[str, Any]) -> bool:
    return params.items() <= _expected(trial).items()


def _array(points: list[tuple[int, ...]], grid: Grid) -> Points:
    return np.array(points, dtype=np.int64).reshape(-1, len(grid.levels))


def _values(trial: FrozenTrial, aims: Objectives) -> tuple[float, float] | None:
    """Size and score of a finished trial; of a pruned one what it says of them."""
    if trial.state == TrialState.COMPLETE:
        size, score = trial.values[aims.size], trial.values[1 - aims.size]
    elif trial.state == TrialState.PRUNED:
        partial = trial.user_attrs.get("partial")
        score = partial.get("score") if isinstance(partial, dict) else None
        size = np.nan
    else:
        return None
    if not isinstance(score, int | float) or not np.isfinite(score):
        return None
    return aims.size_sign * size, aims.score_sign * score
