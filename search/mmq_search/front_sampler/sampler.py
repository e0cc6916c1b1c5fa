"""An Optuna sampler that finds the front of size against score in few evaluations."""

import functools
import threading
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, TrialState

from mmq_search.front_sampler.candidates import Fix, farthest
from mmq_search.front_sampler.grid import Grid, Points, Size, Sizes, by_size
from mmq_search.front_sampler.observations import Objectives, Told, claim, suggested
from mmq_search.front_sampler.proposal import Bounds, propose
from mmq_search.front_sampler.surrogate import Shape


class FrontSampler(BaseSampler):
    """Proposes what is expected to enlarge the front most, for studies of size against score.

    Made for two objectives of which one, the size, is known before the evaluation (or learned
    within a few trials: it is a sum over the parameters), while the other, the score, rises with
    what every parameter adds to the size, in a saturating way: bit widths of a model's parts, but
    also ranks or widths. Scores are modelled by a product of saturating curves with a Gaussian
    process behind; the expected improvement of the hypervolume is then a closed form. Nothing is
    proposed twice; where everything was, `optimize` stops.

        study = optuna.create_study(
            directions=["minimize", "maximize"], sampler=FrontSampler(seed=0)
        )

    Parameters may be categorical, integer or float (wide ranges are searched on 64 values);
    directions are free. What failed is not proposed again, and what is near it less; what others
    are evaluating is taken to end as expected; of a pruned trial with the user attribute
    `partial` ({"score": ...}), that score is learned. Constraints set by `trial.set_constraint`
    are learned; those on size and score are better given here, in the units of the study's
    objectives.

    seed: of the little that is random.
    size: size of a trial's parameters; without it, the sizes that trials return are learned.
    size_objective: index of that objective; by itself the only one that is minimized, else 0.
    profile: by parameter, a loss for every level in ascending order of sizes, known beforehand up
        to a common power: the curves have its shape.
    max_size: nothing larger is proposed while something smaller is left, from the second trial on
        (the first one is random), or from when sizes are learned.
    min_score: what scores less earns nothing; the smallest that does not is looked for.
    limits: functions of the parameters with their largest values, like `max_size`.
    n_startup_trials: spread over the space before the model is asked.
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
        self._known: tuple[dict[str, BaseDistribution], Grid, Sizes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what cannot be pickled: it is made again."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_known")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock(), "_known": None}

    def reseed_rng(self) -> None:
        """New random numbers: for the copies of parallel workers."""
        self._rng = np.random.default_rng()
        self._entropy = np.random.SeedSequence().generate_state(4).tolist()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that all finished trials share; before that, what was suggested."""
        return self._space.calculate(study) or suggested(study)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """At random: the first trial, and parameters that not all trials have.

        By the trial's number: processes of one seed that begin together begin differently.
        """
        words = [*self._entropy, trial.number, zlib.crc32(param_name.encode())]
        seed = int(np.random.SeedSequence(words).generate_state(1)[0])
        sampler = RandomSampler(seed=seed)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters to evaluate next; ValueError for a study without two objectives."""
        with self._lock:  # threads of one study: each sees what the others were given
            while found := self._next(study, trial, search_space):
                if claim(study, trial, found):
                    break
        return found

    def _next(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        aims = Objectives.of(study, self.size_objective, Grid.of(search_space))
        if not search_space:
            return {}
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        grid, sizes = self._sized(search_space, others, aims)
        told = Told.by(others, grid, aims)
        bounds = Bounds(
            None if self.max_size is None else aims.size_sign * self.max_size,
            None if self.min_score is None else aims.score_sign * self.min_score,
            [(Sizes.known(grid, known, self._rng), most) for known, most in self.limits],
        )
        fix = _fixing(grid, trial.system_attrs.get("fixed_params", {}))
        if len(told.points) >= max(self.n_startup_trials, 2):
            point = propose(grid, told, sizes, self._shape(grid), bounds, fix, self._rng)
        else:
            allowed = functools.partial(bounds.allow, sizes=sizes)
            point = farthest(grid, allowed, told.seen, fix, self._rng)
        return {} if point is None else grid.decode(point.tolist())  # {}: nothing is left

    def _sized(
        self, space: dict[str, BaseDistribution], trials: Sequence[FrozenTrial], aims: Objectives
    ) -> tuple[Grid, Sizes]:
        """The grid, its levels in ascending order of size, and all sizes, small ones good."""
        if self.size is None:
            grid = Grid.of(space)
            told = Told.by(trials, grid, aims)
            known = np.isfinite(told.sizes)
            return by_size(grid, Sizes.fitted(grid, told.points[known], told.sizes[known]))
        if self._known is None or self._known[0] != space:
            size, sign = self.size, aims.size_sign
            grid = Grid.of(space)
            sizes = Sizes.known(grid, lambda params: sign * size(params), self._rng)
            self._known = space, *by_size(grid, sizes)
        return self._known[1], self._known[2]

    def _shape(self, grid: Grid) -> Shape:
        if self.profile is None:
            return Shape.plain(grid.counts.tolist())
        for name, values in grid.levels.items():
            losses = self.profile.get(name, ())
            if len(losses) != len(values) or not all(0 <= loss < np.inf for loss in losses):
                raise ValueError(
                    f"profile: {name!r} needs {len(values)} losses of zero or more, one for each "
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
        """Stop `optimize` where everything was tried, unless some trial had other parameters."""
        space = self._space.calculate(study)
        if not space or not study._thread_local.in_optimize_loop:
            return
        trials = study.get_trials(deepcopy=False)
        if any(t.params.keys() - space.keys() for t in trials):
            return
        grid = Grid.of(space)
        told = Told.by(trials, grid, Objectives.of(study, self.size_objective, grid))
        if len(told.tried) >= grid.total:
            study.stop()


def _fixing(grid: Grid, given: Mapping[str, Any]) -> Fix:
    """Sets the parameters that were enqueued for a trial, where not all of them were."""
    levels = {d: n for d, n in enumerate(grid.levels) if n in given}
    chosen = {d: grid.index(name, given[name]) for d, name in levels.items()}

    def fix(points: Points) -> Points:
        for d, level in chosen.items():
            points[:, d] = level
        return points

    return fix
