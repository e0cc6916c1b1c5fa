"""Many finished runs at once.

MLflow's client takes three calls a run, a transaction each: 30 ms on SQLite, a minute for 2,000.
Where the store is a database that this process can reach, its own tables are filled in one
transaction; a tracking server is asked run by run, by several threads.
"""

import getpass
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from tqdm import tqdm

log = logging.getLogger(__name__)
THREADS = 8


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that is over."""

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def create_finished(
    client: MlflowClient, experiment_id: str, runs: Sequence[FinishedRun], quiet: bool = False
) -> list[str]:
    """Log these runs as FINISHED; their ids. In a database, all of them or none."""
    if engine := _engine(client):
        return _insert(client, engine, experiment_id, runs)

    def one(run: FinishedRun) -> str:
        return _create(client, experiment_id, run)

    with ThreadPoolExecutor(THREADS) as pool:
        bar = tqdm(pool.map(one, runs), total=len(runs), unit="run", disable=quiet)
        return list(bar)


def _create(client: MlflowClient, experiment_id: str, run: FinishedRun) -> str:
    """One run through the client."""
    run_id = str(
        client.create_run(experiment_id, run_name=run.name, tags=dict(run.tags)).info.run_id
    )
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(k, float(v), now, 0) for k, v in run.metrics.items()],
        params=[Param(k, str(v)) for k, v in run.params.items()],
        tags=[RunTag("mlflow.runName", run.name)],
    )
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _engine(client: MlflowClient) -> Any:
    """The database's engine; None where the store is none that can be filled directly."""
    try:
        from mlflow.store.tracking.dbmodels import models
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = client._tracking_client.store
        tables = ("SqlRun", "SqlTag", "SqlParam", "SqlMetric", "SqlLatestMetric")
        if isinstance(store, SqlAlchemyStore) and all(hasattr(models, name) for name in tables):
            return store.engine
    except (ImportError, AttributeError):  # another MLflow keeps them elsewhere
        log.info("The store's tables are not where they were; runs are logged one by one.")
    return None


def _insert(
    client: MlflowClient, engine: Any, experiment_id: str, runs: Sequence[FinishedRun]
) -> list[str]:
    """The rows that the client's calls would have made, in one transaction."""
    from mlflow.store.tracking.dbmodels import models
    from mlflow.utils.uri import append_to_uri_path

    place = client.get_experiment(experiment_id).artifact_location
    now = int(time.time() * 1000)
    ids = [uuid.uuid4().hex for _ in runs]
    heads, tags, params, metrics = [], [], [], []
    for run_id, run in zip(ids, runs, strict=True):
        heads.append(
            {
                "run_uuid": run_id, "name": run.name, "source_type": "UNKNOWN",
                "source_name": "", "entry_point_name": "", "user_id": _user(run),
                "status": "FINISHED", "start_time": now, "end_time": now, "deleted_time": None,
                "source_version": "", "lifecycle_stage": "active",
                "artifact_uri": append_to_uri_path(place, run_id, "artifacts"),
                "experiment_id": int(experiment_id),
            }
        )  # fmt: skip
        own = {**run.tags, "mlflow.runName": run.name}
        tags += [{"run_uuid": run_id, "key": k, "value": v} for k, v in own.items()]
        params += [{"run_uuid": run_id, "key": k, "value": str(v)} for k, v in run.params.items()]
        metrics += [
            {"run_uuid": run_id, "key": key, "value": float(value), "timestamp": now, "step": 0,
             "is_nan": False}
            for key, value in run.metrics.items()
        ]  # fmt: skip
    with engine.begin() as connection:
        for table, rows in (
            (models.SqlRun, heads),
            (models.SqlTag, tags),
            (models.SqlParam, params),
            (models.SqlMetric, metrics),
            (models.SqlLatestMetric, metrics),
        ):
            if rows:
                connection.execute(table.__table__.insert(), rows)
    return ids


def _user(run: FinishedRun) -> str:
    return run.tags.get("mlflow.user") or getpass.getuser()
