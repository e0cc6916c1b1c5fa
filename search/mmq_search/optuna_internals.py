"""Every use of Optuna's private API, with the reason why the public API is not enough.

- `read_trials`: `optuna.storages._rdb.models`, `RDBStorage._get_trials`. Optuna makes one object
  per row: 2.1 s of processor time for 2,000 trials of 18 parts instead of 0.2 to 0.4 s.
- `BatchStorage.batched_params`: `RDBStorage._set_trial_param`, `_set_trial_param_without_commit`,
  `_create_scoped_session`. `Trial.suggest_int` commits once per parameter.
- `BatchStorage.write_attributes`: `RDBStorage._set_trial_attr_without_commit`.
  `Trial.set_user_attr` commits once per attribute.
- `BatchStorage.reading_once`: `RDBStorage._get_trials`. Optuna reads the trials 16 times per trial
  that it proposes and reports: half of the time that dispatching takes.
- `BatchStorage.get_state`: `optuna.storages._rdb.models`. `get_trial` reads seven tables.
- `wrap_methods`: every method of `RDBStorage`. The cache that Optuna puts in front of a storage
  calls private methods, which must be retried as well.
- `stale_trial_numbers`: `RDBStorage._get_stale_trial_ids`, `FrozenTrial._trial_id`.
  `optuna.storages.fail_stale_trials` fails stale trials without naming them.
- `enqueued_params`: the system attribute `fixed_params`. Nothing public returns the parameters
  that a trial was enqueued with.
- `set_proposal`: `Study._storage`, `FrozenTrial._trial_id`. A sampler has no public way to write
  an attribute of its trial.

VERSIONS names the minor versions that tests/search/test_optuna_internals.py was run with; the test
fails with any other.
"""

import functools
import inspect
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Row, Table, or_, select

VERSIONS = ("5.0",)  # minor versions of Optuna that the tests ran with
BATCH = 500  # ids per statement: databases limit them
PROPOSAL = "mmq:proposed"  # system attribute: what a trial's parameters will be
_distribution = functools.lru_cache(maxsize=1000)(json_to_distribution)


# --- storage -------------------------------------------------------------------------------------
class BatchStorage(RDBStorage):
    """Optuna's storage, which reads all trials at once and writes a trial's attributes at once.

    changes: how many writes this process has attempted; subclasses count them.
    """

    _batch: list[tuple[Any, ...]] | None = None
    changes = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._reads = threading.local()  # by thread: what `reading_once` has read, in a block
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

    @contextmanager
    def batched_params(self) -> Iterator[None]:
        """Write the parameters that this block suggests at its end, in one transaction.

        Only for the thread that holds the study's lock.
        """
        batch: list[tuple[Any, ...]] = []
        self._batch = batch
        try:
            yield
        finally:
            self._batch = None
        if batch:
            self.write_params(batch)

    def write_params(self, batch: Sequence[tuple[Any, ...]]) -> None:
        """Write these parameters in one transaction."""
        with _create_scoped_session(self.scoped_session, True) as session:
            for parameter in batch:
                self._set_trial_param_without_commit(session, *parameter)

    def write_attributes(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Write these user attributes of a trial in one transaction."""
        with _create_scoped_session(self.scoped_session, True) as session:
            for name, value in attributes.items():
                self._set_trial_attr_without_commit(
                    session, models.TrialUserAttributeModel, trial_id, name, value
                )

    def get_state(self, trial_id: int) -> TrialState:
        """A trial's state; KeyError for an unknown one."""
        trials = _table(models.TrialModel)
        query = select(trials.c.state).where(trials.c.trial_id == trial_id)
        with self.engine.connect() as connection:
            state = connection.scalar(query)
        if state is None:
            raise KeyError(f"there is no trial {trial_id}")
        return TrialState(state)

    def _set_trial_param(self, *parameter: Any) -> None:
        if self._batch is None:
            super()._set_trial_param(*parameter)
        else:
            self._batch.append(parameter)

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
            trials = read_trials(
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


def set_proposal(study: Study, trial: FrozenTrial, params: Mapping[str, Any]) -> None:
    """Show other processes what a running trial's parameters will be."""
    study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL, dict(params))


def proposal(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that `set_proposal` recorded."""
    return dict(trial.system_attrs.get(PROPOSAL, {}))


# --- tables --------------------------------------------------------------------------------------
def read_trials(
    connection: Connection,
    study_id: int,
    states: Container[TrialState] | None,
    included: set[int],
    above: int,
) -> list[FrozenTrial]:
    """A study's trials in these states whose id is above a number, or one of those included."""
    trials, studies = _table(models.TrialModel), _table(models.StudyModel)
    if connection.execute(select(1).where(studies.c.study_id == study_id)).first() is None:
        raise KeyError("there is no such study")  # as Optuna's own
    query = select(trials).where(trials.c.study_id == study_id).order_by(trials.c.trial_id)
    if above > -1:
        query = query.where(or_(trials.c.trial_id > above, *_among(trials, included, above)))
    rows = [row for row in connection.execute(query) if states is None or row.state in states]
    if not rows:
        return []
    ids = [row.trial_id for row in rows]
    read = functools.partial(_by_trial, connection, ids)
    params = read(models.TrialParamModel, "param_name", "param_value", "distribution_json")
    values = read(models.TrialValueModel, "objective", "value", "value_type")
    user = read(models.TrialUserAttributeModel, "key", "value_json")
    system = read(models.TrialSystemAttributeModel, "key", "value_json")
    steps = read(
        models.TrialIntermediateValueModel,
        "step", "intermediate_value", "intermediate_value_type",
    )  # fmt: skip
    return [
        _trial(row, *(table[row.trial_id] for table in (params, values, user, system, steps)))
        for row in rows
    ]


def _table(model: Any) -> Table:
    table: Table = model.__table__
    return table


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


def _among(trials: Table, included: set[int], above: int) -> Iterator[Any]:
    for ids in _batches(sorted(k for k in included if k <= above)):
        yield trials.c.trial_id.in_(ids)


def _by_trial(
    connection: Connection, ids: Sequence[int], model: Any, *names: str
) -> dict[int, list[tuple[Any, ...]]]:
    """These columns of a table by trial id, in the order in which they were written."""
    table, by_trial = _table(model), defaultdict(list)
    columns = [table.c[name] for name in ("trial_id", *names)]
    for batch in _batches(ids):
        query = select(*columns).where(table.c.trial_id.in_(batch))
        for trial_id, *values in connection.execute(query.order_by(*table.primary_key)):
            by_trial[trial_id].append(tuple(values))
    return by_trial


def _trial(
    row: Row[Any],
    param_rows: Sequence[tuple[Any, ...]],
    value_rows: Sequence[tuple[Any, ...]],
    user: Sequence[tuple[Any, ...]],
    system: Sequence[tuple[Any, ...]],
    steps: Sequence[tuple[Any, ...]],
) -> FrozenTrial:
    distributions: dict[str, BaseDistribution] = {}
    params: dict[str, Any] = {}
    for name, value, text in param_rows:
        distributions[name] = _distribution(text)
        params[name] = distributions[name].to_external_repr(value)
    values = [0.0] * len(value_rows)
    for objective, value, kind in value_rows:
        values[objective] = models.TrialValueModel.stored_repr_to_value(value, kind)
    to_step = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    return FrozenTrial(
        number=row.number,
        state=row.state,
        value=None,
        values=values or None,
        datetime_start=row.datetime_start,
        datetime_complete=row.datetime_complete,
        params=params,
        distributions=distributions,
        user_attrs={key: json.loads(text) for key, text in user},
        system_attrs={key: json.loads(text) for key, text in system},
        intermediate_values={step: to_step(value, kind) for step, value, kind in steps},
        trial_id=row.trial_id,
    )
