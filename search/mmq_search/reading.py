"""Trials out of Optuna's tables, many at once: what its own classes read row by row."""

import functools
import json
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Row, Table, or_, select

AT_ONCE = 500  # ids in one statement: databases have limits
_distribution = functools.lru_cache(maxsize=1000)(json_to_distribution)


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
    params = _by_trial(connection, models.TrialParamModel, ids, "param_id")
    values = _by_trial(connection, models.TrialValueModel, ids)
    own = _by_trial(connection, models.TrialUserAttributeModel, ids)
    system = _by_trial(connection, models.TrialSystemAttributeModel, ids)
    steps = _by_trial(connection, models.TrialIntermediateValueModel, ids)
    return [
        _trial(row, *(found[row.trial_id] for found in (params, values, own, system, steps)))
        for row in rows
    ]


def _table(model: Any) -> Table:
    found: Table = model.__table__
    return found


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), AT_ONCE):
        yield ids[start : start + AT_ONCE]


def _among(trials: Table, included: set[int], above: int) -> Iterator[Any]:
    for ids in _batches(sorted(k for k in included if k <= above)):
        yield trials.c.trial_id.in_(ids)


def _by_trial(
    connection: Connection, model: Any, ids: Sequence[int], order: str = ""
) -> dict[int, list[Row[Any]]]:
    """Rows of a table by the trial that they belong to."""
    table, found = _table(model), defaultdict(list)
    for some in _batches(ids):
        query = select(table).where(table.c.trial_id.in_(some))
        for row in connection.execute(query.order_by(table.c[order]) if order else query):
            found[row.trial_id].append(row)
    return found


def _trial(
    row: Row[Any],
    params: Sequence[Row[Any]],
    values: Sequence[Row[Any]],
    own: Sequence[Row[Any]],
    system: Sequence[Row[Any]],
    steps: Sequence[Row[Any]],
) -> FrozenTrial:
    distributions: dict[str, BaseDistribution] = {
        p.param_name: _distribution(p.distribution_json) for p in params
    }
    objectives = [0.0] * len(values)
    for each in values:
        objectives[each.objective] = models.TrialValueModel.stored_repr_to_value(
            each.value, each.value_type
        )
    to_step = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    return FrozenTrial(
        number=row.number,
        state=row.state,
        value=None,
        values=objectives or None,
        datetime_start=row.datetime_start,
        datetime_complete=row.datetime_complete,
        params={
            p.param_name: distributions[p.param_name].to_external_repr(p.param_value)
            for p in params
        },
        distributions=distributions,
        user_attrs={each.key: json.loads(each.value_json) for each in own},
        system_attrs={each.key: json.loads(each.value_json) for each in system},
        intermediate_values={
            each.step: to_step(each.intermediate_value, each.intermediate_value_type)
            for each in steps
        },
        trial_id=row.trial_id,
    )
