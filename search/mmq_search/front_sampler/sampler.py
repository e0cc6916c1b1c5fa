"""An Optuna sampler that finds the front of size against score in few evaluations."""

import functools
import logging
import threading
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, TrialState

from mmq_search.front_sampler.candidates import Fix, farthest
from mmq_search.front_sampler.grid import Grid, Points, Size, Sizes, by_size
from mmq_search.front_sampler.observations import Objectives, Observations, claim, suggested
from mmq_search.front_sampler.proposal import Bounds, propose
from mmq_search.front_sampler.surrogate import Shape
from mmq_search.optuna_internals import enqueued_params

log = logging.getLogger(__name__)


class FrontSampler(BaseSampler):
    """Proposes the point with the largest expected improvement of the size-score front.

    For two objectives. One, the size, is known before the evaluation or learned from a few trials,
    as it is a sum over the parameters. The other, the score, rises with every parameter's share of
    the size and saturates: bit widths of a model's parts, but also ranks or layer widths. Scores
    are modelled by a product of saturating curves and a Gaussian process, so that the expected
    improvement of the hypervolume has a closed form. No point is proposed twice; `optimize` stops
    when all points have been.

        study = optuna.create_study(
            directions=["minimize", "maximize"], sampler=FrontSampler(seed=0)
        )

    Parameters may be categorical, integer or float (wide ranges are searched on 64 values), and
    each objective may be minimized or maximized. Failed points are not proposed again, and points
    near them less often. Points that other processes are evaluating are assumed to score as
    expected. A pruned trial with the user attribute `partial` ({"score": ...}) counts with that
    score. Constraints set by `trial.set_constraint` are learned; bounds on size and score are
    better given here, in the units of the study's objectives. A study with one objective is
    sampled at random, with a warning.

    seed: of the random choices.
    size: returns the size of a trial's parameters; without it, sizes are learned from the trials.
    size_objective: index of the size among the objectives; by default the only one that is
        minimized, else the one that is closer to a sum over the parameters.
    profile: by parameter, one loss per level in ascending order of sizes, known beforehand up to a
        common power; it gives the curves their shape.
    max_size: propose nothing larger while something smaller is left, from the second trial on (the
        first one is random), or from when sizes are learned.
    min_score: scores below it do not count; the smallest point that reaches it is searched for.
    limits: functions of the parameters, each with its largest value, like `max_size`.
    n_startup_trials: how many points to spread over the space before the model is used.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        size: Size | None = None,
        size_objective: int | None = None,
        profile: Mapping[str, Sequence[float]] | None = None,
        max_size: float | None = None,
        min_score: float | None = None,
        limits: Sequence[tuple[Size, float]] = (),
        n_startup_trials: int = 4,
    ) -> None:
        if size_objective not in (None, 0, 1):
            raise ValueError(f"size_objective: {size_objective} is not 0 or 1")
        self.size, self.size_objective, self.profile = size, size_objective, profile
        self.max_size, self.min_score, self.limits = max_size, min_score, limits
        self.n_startup_trials = n_startup_trials
        self._rng = np.random.default_rng(seed)
        self._entropy = np.random.SeedSequence(seed).generate_state(4).tolist()
        self._space = IntersectionSearchSpace()
        self._lock = threading.Lock()
        self._cached: tuple[dict[str, BaseDistribution], Grid, Sizes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the lock and the cached sizes, which cannot be pickled."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_cached")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock(), "_cached": None}

    def reseed_rng(self) -> None:
        """Draw new random numbers, for the copies of parallel workers."""
        self._rng = np.random.default_rng()
        self._entropy = np.random.SeedSequence().generate_state(4).tolist()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that all finished trials share; before that, the suggested ones."""
        if _has_one_objective(study):
            return {}
        return self._space.calculate(study) or suggested(study)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value: in the first trial, and for parameters that not all trials have.

        The trial's number goes into the seed: processes that start together with the same seed
        start with different points.
        """
        words = [*self._entropy, trial.number, zlib.crc32(param_name.encode())]
        seed = int(np.random.SeedSequence(words).generate_state(1)[0])
        sampler = RandomSampler(seed=seed)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters to evaluate next; ValueError for more than two objectives."""
        if _has_one_objective(study):
            return {
                name: self.sample_independent(study, trial, name, distribution)
                for name, distribution in search_space.items()
            }
        with self._lock:  # of threads in one study, each sees the others' proposals
            while params := self._next(study, trial, search_space):
                if claim(study, trial, params):
                    break
        return params

    def _next(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        objectives = Objectives.of(study, self.size_objective, Grid.of(search_space))
        if not search_space:
            return {}
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        grid, sizes = self._sized(search_space, others, objectives)
        observations = Observations.of(others, grid, objectives)
        bounds = Bounds(
            None if self.max_size is None else objectives.size_sign * self.max_size,
            None if self.min_score is None else objectives.score_sign * self.min_score,
            [(Sizes.tabulated(grid, size, self._rng), most) for size, most in self.limits],
        )
        fix = _fixing(grid, enqueued_params(trial))
        if len(observations.points) >= max(self.n_startup_trials, 2):
            shape = self._shape(grid)
            point = propose(grid, observations, sizes, shape, bounds, fix, self._rng)
        else:
            allowed = functools.partial(bounds.allow, sizes=sizes)
            point = farthest(grid, allowed, observations.excluded, fix, self._rng)
        return {} if point is None else grid.decode(point.tolist())  # {}: no point is left

    def _sized(
        self,
        space: dict[str, BaseDistribution],
        trials: Sequence[FrozenTrial],
        objectives: Objectives,
    ) -> tuple[Grid, Sizes]:
        """The grid with levels in ascending order of size, and all sizes; small is good."""
        if self.size is None:
            grid = Grid.of(space)
            observations = Observations.of(trials, grid, objectives)
            measured = np.isfinite(observations.sizes)
            points, values = observations.points[measured], observations.sizes[measured]
            return by_size(grid, Sizes.fitted(grid, points, values))
        if self._cached is None or self._cached[0] != space:
            size, sign = self.size, objectives.size_sign
            grid = Grid.of(space)
            sizes = Sizes.tabulated(grid, lambda params: sign * size(params), self._rng)
            self._cached = space, *by_size(grid, sizes)
        return self._cached[1], self._cached[2]

    def _shape(self, grid: Grid) -> Shape:
        if self.profile is None:
            return Shape.plain(grid.counts.tolist())
        for name, values in grid.levels.items():
            losses = self.profile.get(name, ())
            if len(losses) != len(values) or not all(0 <= loss < np.inf for loss in losses):
                raise ValueError(
                    f"profile: {name!r} needs {len(values)} losses of zero or more, one per level "
                    f"of {values}, not {losses}"
                )
        return Shape.profiled([np.asarray(self.profile[n], dtype=float) for n in grid.levels])

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Stop `optimize` when all points are evaluated, unless a trial had other parameters."""
        space = {} if _has_one_objective(study) else self._space.calculate(study)
        trials, grid = study.get_trials(deepcopy=False), Grid.of(space)
        if not space or len(trials) < grid.total:
            return
        if any(t.params.keys() - space.keys() for t in trials):
            return
        objectives = Objectives.of(study, self.size_objective, grid)
        if len(Observations.of(trials, grid, objectives).attempts) >= grid.total:
            with suppress(RuntimeError):  # Optuna's own where `ask` and `tell` are called directly
                study.stop()


def _has_one_objective(study: Study) -> bool:
    """Whether there is no front to search, which the log reports once per study."""
    if len(study.directions) != 1:
        return False
    _warn_of_one_objective(study.study_name)
    return True


@functools.cache
def _warn_of_one_objective(name: str) -> None:
    log.warning(
        "FrontSampler needs two objectives, size and score. Study %s has one: its parameters are "
        "sampled at random. Choose another sampler for it, such as TPESampler.",
        name,
    )


def _fixing(grid: Grid, params: Mapping[str, Any]) -> Fix:
    """A function that sets a trial's enqueued parameters in points, if only some are enqueued."""
    levels = {d: n for d, n in enumerate(grid.levels) if n in params}
    fixed = {d: grid.index(name, params[name]) for d, name in levels.items()}

    def fix(points: Points) -> Points:
        for d, level in fixed.items():
            points[:, d] = level
        return points

    return fix
