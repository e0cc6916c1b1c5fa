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
    read = functools.partial(_by_trial, connection, ids)
    params = read(models.TrialParamModel, "param_name", "param_value", "distribution_json")
    values = read(models.TrialValueModel, "objective", "value", "value_type")
    own = read(models.TrialUserAttributeModel, "key", "value_json")
    system = read(models.TrialSystemAttributeModel, "key", "value_json")
    steps = read(
        models.TrialIntermediateValueModel,
        "step", "intermediate_value", "intermediate_value_type",
    )  # fmt: skip
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
    connection: Connection, ids: Sequence[int], model: Any, *columns: str
) -> dict[int, list[tuple[Any, ...]]]:
    """These columns of a table by the trial that the rows belong to, in the order of writing."""
    table, found = _table(model), defaultdict(list)
    chosen = [table.c[name] for name in ("trial_id", *columns)]
    for some in _batches(ids):
        query = select(*chosen).where(table.c.trial_id.in_(some))
        for trial_id, *values in connection.execute(query.order_by(*table.primary_key)):
            found[trial_id].append(tuple(values))
    return found


def _trial(
    row: Row[Any],
    given: Sequence[tuple[Any, ...]],
    values: Sequence[tuple[Any, ...]],
    own: Sequence[tuple[Any, ...]],
    system: Sequence[tuple[Any, ...]],
    steps: Sequence[tuple[Any, ...]],
) -> FrozenTrial:
    distributions: dict[str, BaseDistribution] = {}
    params: dict[str, Any] = {}
    for name, value, text in given:
        distributions[name] = _distribution(text)
        params[name] = distributions[name].to_external_repr(value)
    objectives = [0.0] * len(values)
    for objective, value, kind in values:
        objectives[objective] = models.TrialValueModel.stored_repr_to_value(value, kind)
    to_step = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    return FrozenTrial(
        number=row.number,
        state=row.state,
        value=None,
        values=objectives or None,
        datetime_start=row.datetime_start,
        datetime_complete=row.datetime_complete,
        params=params,
        distributions=distributions,
        user_attrs={key: json.loads(text) for key, text in own},
        system_attrs={key: json.loads(text) for key, text in system},
        intermediate_values={step: to_step(value, kind) for step, value, kind in steps},
        trial_id=row.trial_id,
    )
