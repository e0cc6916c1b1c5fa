"""Rows of Optuna's tables, read and written without an object per row: its private API.

`optuna.storages._rdb.models` has the tables. Functions run in the transaction of their connection.
"""

import functools
import json
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Row, Table, delete, insert, or_, select, update

BATCH = 500  # ids per statement: databases limit them
Parameter = tuple[Any, ...]  # trial id, name, internal value, distribution, previous distribution
_distribution = functools.lru_cache(maxsize=1000)(json_to_distribution)


# --- reading -------------------------------------------------------------------------------------
def read_trials(
    connection: Connection,
    study_id: int,
    states: Container[TrialState] | None,
    included: set[int],
    above: int,
) -> list[FrozenTrial]:
    """A study's trials in these states whose id is above a number, or one of those included."""
    trials, studies = _table(models.TrialModel), _table(models.StudyModel)
    query = select(trials).where(trials.c.study_id == study_id).order_by(trials.c.trial_id)
    if above > -1:
        query = query.where(or_(trials.c.trial_id > above, *_among(trials, included, above)))
    rows = connection.execute(query).all()
    study = select(1).where(studies.c.study_id == study_id)
    if not rows and connection.execute(study).first() is None:
        raise KeyError("there is no such study")  # as Optuna's own
    return _trials(connection, [row for row in rows if states is None or row.state in states])


def _trials(connection: Connection, rows: Sequence[Row[Any]]) -> list[FrozenTrial]:
    """The trials of these rows. Optuna writes values and steps of trials with two objectives only
    when they end.
    """
    ids = [row.trial_id for row in rows]
    ended = [row.trial_id for row in rows if row.state.is_finished()]
    read = functools.partial(_by_trial, connection)
    params = read(ids, models.TrialParamModel, "param_name", "param_value", "distribution_json")
    values = read(ended, models.TrialValueModel, "objective", "value", "value_type")
    user = read(ids, models.TrialUserAttributeModel, "key", "value_json")
    system = read(ids, models.TrialSystemAttributeModel, "key", "value_json")
    steps = read(
        ended, models.TrialIntermediateValueModel,
        "step", "intermediate_value", "intermediate_value_type",
    )  # fmt: skip
    return [
        _trial(row, *(table[row.trial_id] for table in (params, values, user, system, steps)))
        for row in rows
    ]


def read_trial(connection: Connection, trial_id: int) -> FrozenTrial:
    """A trial; KeyError for an unknown one."""
    trials = _table(models.TrialModel)
    rows = connection.execute(select(trials).where(trials.c.trial_id == trial_id)).all()
    if not rows:
        raise KeyError(f"there is no trial {trial_id}")
    return _trials(connection, rows)[0]


def read_state(connection: Connection, trial_id: int) -> TrialState:
    """A trial's state; KeyError for an unknown one."""
    trials = _table(models.TrialModel)
    state = connection.scalar(select(trials.c.state).where(trials.c.trial_id == trial_id))
    if state is None:
        raise KeyError(f"there is no trial {trial_id}")
    return TrialState(state)


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


# --- writing -------------------------------------------------------------------------------------
def write_params(connection: Connection, params: Sequence[Parameter]) -> None:
    """Write parameters of a trial that has none of them."""
    rows = [
        {"trial_id": trial_id, "param_name": name, "param_value": value,
         "distribution_json": distribution_to_json(distribution)}
        for trial_id, name, value, distribution, _ in params
    ]  # fmt: skip
    if rows:
        connection.execute(insert(_table(models.TrialParamModel)), rows)


def write_attributes(connection: Connection, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Write user attributes of a trial, and replace those that it has."""
    table = _table(models.TrialUserAttributeModel)
    own = (table.c.trial_id == trial_id, table.c.key.in_(attributes))
    connection.execute(delete(table).where(*own))
    rows = [
        {"trial_id": trial_id, "key": name, "value_json": json.dumps(value)}
        for name, value in attributes.items()
    ]
    connection.execute(insert(table), rows)


def write_heartbeat(connection: Connection, trial_id: int) -> None:
    """Write a trial's first heartbeat, of this moment by the database's clock."""
    table = _table(models.TrialHeartbeatModel)
    connection.execute(delete(table).where(table.c.trial_id == trial_id))
    connection.execute(insert(table).values(trial_id=trial_id))


def end_trial(
    connection: Connection, trial_id: int, state: TrialState, values: Sequence[float]
) -> bool:
    """Write the final state and the values of a trial; False if it is not running."""
    trials, own = _table(models.TrialModel), _table(models.TrialValueModel)
    running = (trials.c.trial_id == trial_id, trials.c.state == TrialState.RUNNING)
    change = update(trials).where(*running)
    change = change.values(state=state, datetime_complete=datetime.now())
    if not connection.execute(change).rowcount:
        return False
    stored = map(models.TrialValueModel.value_to_stored_repr, values)
    rows = [
        {"trial_id": trial_id, "objective": k, "value": value, "value_type": kind}
        for k, (value, kind) in enumerate(stored)
    ]
    if rows:
        connection.execute(insert(own), rows)
    return True
