"""Every use of MLflow's private API and tables, with the reason for each.

- `insert_runs`, `artifact_uri`: the tables behind `SqlAlchemyStore`. The public client takes three
  transactions per run; benchmarks/bulk_import.py has the ratio.
- `defer_signals`: the sessions of SQL stores. An interrupt within one can leave the database
  locked; an interrupt while the public client waits for a server must end the wait.
- `StorePaths`: the columns of a SQLite store that contain artifact paths. No public call changes
  the paths of existing experiments and runs after a project was moved.
- `has_experiments`: the table `experiments`. MLflow creates a store's tables one by one, and the
  public client would start to create them a second time.
- `is_serving`: the variable that MLflow's scoring server sets. There is no public call.
- `STORE_LOGGER`: the logger that writes a traceback for every database error.

VERSIONS names the minor versions that tests/mmq/tracking/test_mlflow_internals.py was run with;
the test fails with any other.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from mmq.system.signals import signals_deferred

VERSIONS = ("3.17",)
STORE_LOGGER = "mlflow.store.db.utils"
Row = Mapping[str, Any]
SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


def is_serving() -> bool:
    """Whether this process answers for `mlflow models serve`."""
    return os.environ.get(SERVING, "").lower() == "true"


# --- runs ----------------------------------------------------------------------------------------
def store_engine(client: MlflowClient) -> Any:
    """The SQLAlchemy engine of a client's store; None if it is a server or another MLflow's."""
    try:
        from mlflow.store.tracking.dbmodels import models
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = client._tracking_client.store
    except (ImportError, AttributeError):
        return None
    tables = ("SqlRun", "SqlTag", "SqlParam", "SqlMetric", "SqlLatestMetric")
    usable = isinstance(store, SqlAlchemyStore) and all(hasattr(models, name) for name in tables)
    return store.engine if usable else None


def defer_signals(client: MlflowClient, registry: bool = False) -> None:
    """Defer interrupts in transactions of a client's SQL store, see `signals_deferred`."""
    store = (client._get_registry_client() if registry else client._tracking_client).store
    make = getattr(store, "ManagedSessionMaker", None)
    if make is None or make is getattr(store, "deferring", None):  # not SQL, or done already
        return

    @contextmanager
    def deferring(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with signals_deferred(), make(*args, **kwargs) as session:
            yield session

    store.ManagedSessionMaker = store.deferring = deferring


def artifact_uri(location: str, run_id: str) -> str:
    """Where MLflow keeps a run's artifacts, from its experiment's location."""
    from mlflow.utils.uri import append_to_uri_path

    return str(append_to_uri_path(location, run_id, "artifacts"))


def insert_runs(
    engine: Any,
    runs: Sequence[Row],
    tags: Sequence[Row],
    params: Sequence[Row],
    metrics: Sequence[Row],
) -> None:
    """Insert finished runs in one transaction.

    runs: `run_uuid`, `name`, `user_id`, `experiment_id`, `artifact_uri`, `start_time`, `end_time`.
    The others: `run_uuid`, `key`, `value`.
    """
    from mlflow.store.tracking.dbmodels import models

    constant = {
        "source_type": "UNKNOWN", "source_name": "", "entry_point_name": "", "source_version": "",
        "status": "FINISHED", "lifecycle_stage": "active", "deleted_time": None,
    }  # fmt: skip
    times = {run["run_uuid"]: run["end_time"] for run in runs}
    points = [
        {**row, "timestamp": times[row["run_uuid"]], "step": 0, "is_nan": False} for row in metrics
    ]
    with engine.begin() as connection:
        for table, rows in (
            (models.SqlRun, [{**constant, **run} for run in runs]),
            (models.SqlTag, tags),
            (models.SqlParam, params),
            (models.SqlMetric, points),
            (models.SqlLatestMetric, points),
        ):
            if rows:
                connection.execute(table.__table__.insert(), rows)


# --- paths in a SQLite store ---------------------------------------------------------------------
class StorePaths:
    """The artifact paths in the tables of a SQLite store."""

    COLUMNS = (
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "storage_location"),
        ("model_versions", "source"),
    )

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database

    def experiments(self) -> list[tuple[int, str]]:
        """Id and artifact location of every experiment."""
        query = "select experiment_id, coalesce(artifact_location, '') from experiments"
        return self.database.execute(query).fetchall()

    def run_ids(self, experiment: int) -> list[str]:
        """Ids of an experiment's runs."""
        query = "select run_uuid from runs where experiment_id = ?"
        return [run_id for (run_id,) in self.database.execute(query, (experiment,))]

    def experiment_tags(self, key: str) -> list[str]:
        """The different values of a tag of experiments."""
        query = "select distinct value from experiment_tags where key = ?"
        return [value for (value,) in self.database.execute(query, (key,))]

    def set_experiment_tags(self, key: str, value: str) -> None:
        """Change a tag's value wherever it is set."""
        query = "update experiment_tags set value = ? where key = ?"
        self.database.execute(query, (value, key))

    def columns(self) -> Iterator[tuple[str, str]]:
        """Table and column of all paths; those that another MLflow does not have are left out."""
        query = "select 1 from pragma_table_info(?) where name = ?"
        for table, column in self.COLUMNS:
            if self.database.execute(query, (table, column)).fetchone() is not None:
                yield table, column

    def read(self, table: str, column: str) -> list[tuple[int, str | None]]:
        """Row id and path of every row."""
        return self.database.execute(f"select rowid, {column} from {table}").fetchall()

    def write(self, table: str, column: str, paths: Sequence[tuple[int, str]]) -> None:
        """Replace the paths of these rows."""
        self.database.executemany(
            f"update {table} set {column} = ? where rowid = ?",
            [(path, rowid) for rowid, path in paths],
        )


def has_experiments(path: Path) -> bool:
    """Whether a SQLite store is complete: MLflow adds the first experiment last."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return database.execute("select 1 from experiments").fetchone() is not None
    except sqlite3.Error:
        return False
