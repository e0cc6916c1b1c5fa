"""Every use of Optuna's private API, with the reason why the public API is not enough.

- `BatchStorage._get_trials`, `get_trial`, `get_state`: the tables, see `optuna_tables`. Optuna
  makes one object per row: 2.1 s of processor time for 2,000 trials of 18 parts instead of 0.2 to
  0.4 s.
- `BatchStorage.collecting_params`, `write_start`, `write_end`: `RDBStorage._set_trial_param` and
  the tables. `Trial.suggest_int`, `Trial.set_user_attr` and `Study.tell` commit once per value.
- `BatchStorage.reading_once`: `RDBStorage._get_trials`. Optuna reads the trials 16 times per trial
  that it proposes and reports: half of the time that dispatching takes.
- `wrap_methods`: every method of `RDBStorage`. The cache that Optuna puts in front of a storage
  calls private methods, which must be retried as well.
- `stale_trial_numbers`: `RDBStorage._get_stale_trial_ids`, `FrozenTrial._trial_id`.
  `optuna.storages.fail_stale_trials` fails stale trials without naming them.
- `trial_id`: `Trial._trial_id`. Storages identify trials by it, and look it up by number.
- `enqueued_params`: the system attribute `fixed_params`. Nothing public returns the parameters
  that a trial was enqueued with.
- `set_proposal`: `Study._storage`, `_CachedStorage._backend`, `FrozenTrial._trial_id`. A sampler
  has no public way to write an attribute of its trial.

VERSIONS names the minor versions that tests/search/test_optuna_internals.py was run with; the test
fails with any other.
"""

import inspect
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from optuna import Study
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from mmq_search import optuna_tables as tables
from mmq_search.optuna_tables import Parameter

VERSIONS = ("5.0",)  # minor versions of Optuna that the tests ran with
PROPOSAL = "mmq:proposed"  # system attribute: what a trial's parameters will be


# --- storage -------------------------------------------------------------------------------------
class BatchStorage(RDBStorage):
    """Optuna's storage, which reads all trials at once, and writes a trial in few transactions.

    changes: how many writes this process has attempted; subclasses count them.
    """

    changes = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._reads = threading.local()  # by thread: what `reading_once` has read, in a block
        self._params: list[Parameter] | None = None  # those that `collecting_params` collects
        super().__init__(*args, **kwargs)

    @contextmanager
    def reading_once(self) -> Iterator[None]:
        """Within this block, read trials again only if this process has written since.

        Trials that others complete meanwhile are still running, as a moment ago.
        """
        self._reads.seen = {}
        try:
            yield
        finally:
            self._reads.seen = None

    @property
    def is_collecting(self) -> bool:
        """Whether a block of `collecting_params` is active."""
        return self._params is not None

    @contextmanager
    def collecting_params(self) -> Iterator[list[Parameter]]:
        """Collect the parameters that this block suggests, for `write_start`.

        Only for the thread that holds the study's lock: no process sees a proposal before.
        """
        self._params = []
        try:
            yield self._params
        finally:
            self._params = None

    def write_start(
        self, trial_id: int, params: Sequence[Parameter], attributes: Mapping[str, Any]
    ) -> None:
        """Write a trial's parameters, user attributes and first heartbeat in one transaction."""
        with self.engine.begin() as connection:
            tables.write_params(connection, params)
            tables.write_attributes(connection, trial_id, attributes)
            tables.write_heartbeat(connection, trial_id)

    def write_end(
        self,
        trial_id: int,
        state: TrialState,
        values: Sequence[float],
        attributes: Mapping[str, Any],
    ) -> None:
        """Write a running trial's user attributes, values and final state in one transaction.

        A trial that is not running any more is left as it is, so the call can be repeated.
        """
        with self.engine.begin() as connection:
            if tables.end_trial(connection, trial_id, state, values):
                tables.write_attributes(connection, trial_id, attributes)
            else:
                tables.read_state(connection, trial_id)  # KeyError if it was deleted

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial; KeyError for an unknown one."""
        with self.engine.connect() as connection:
            return tables.read_trial(connection, trial_id)

    def get_state(self, trial_id: int) -> TrialState:
        """A trial's state; KeyError for an unknown one."""
        with self.engine.connect() as connection:
            return tables.read_state(connection, trial_id)

    def _set_trial_param(self, *parameter: Any) -> None:
        if self._params is None:
            super()._set_trial_param(*parameter)
        else:
            self._params.append(parameter)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        seen: dict[int, int] | None = getattr(self._reads, "seen", None)
        if seen is not None and seen.get(study_id) == self.changes and states is None:
            return []  # Optuna's cache has them
        changes = self.changes
        with self.engine.connect() as connection:
            trials = tables.read_trials(
                connection, study_id, states, included_trial_ids, trial_id_greater_than
            )
        if seen is not None and states is None:
            seen[study_id] = changes
        return trials


def wrap_methods(
    storage: type[RDBStorage], wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Replace every inherited method of a storage class, private ones included."""
    for name, method in inspect.getmembers(storage, inspect.isfunction):
        static = isinstance(inspect.getattr_static(storage, name), staticmethod)
        if not name.startswith("__") and not static and name not in vars(storage):
            setattr(storage, name, wrap(name, method))


def stale_trial_numbers(
    storage: RDBStorage, study_id: int, trials: Iterable[FrozenTrial]
) -> set[int]:
    """Numbers of those trials that had no heartbeat for the storage's grace period."""
    stale = set(storage._get_stale_trial_ids(study_id))
    return {trial.number for trial in trials if trial._trial_id in stale}


# --- attributes ----------------------------------------------------------------------------------
def enqueued_params(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that a trial was enqueued with; empty for any other trial."""
    return dict(trial.system_attrs.get("fixed_params", {}))


def trial_id(trial: Trial) -> int:
    """The id by which storages identify a trial."""
    return trial._trial_id


def set_proposal(study: Study, trial: FrozenTrial, params: Mapping[str, Any]) -> None:
    """Show other processes what a running trial's parameters will be.

    Not written while this process holds the study's lock and collects them: no other one proposes.
    """
    backend = getattr(study._storage, "_backend", None)
    if isinstance(backend, BatchStorage) and backend.is_collecting:
        return
    study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL, dict(params))


def proposal(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that `set_proposal` recorded."""
    return dict(trial.system_attrs.get(PROPOSAL, {}))
