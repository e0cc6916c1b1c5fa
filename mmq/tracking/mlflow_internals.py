"""Every use of MLflow's private API, tables and UI state, with the reason for each.

- `insert_runs`, `artifact_uri`: the tables behind `SqlAlchemyStore`. The public client takes three
  transactions per run; benchmarks/bulk_import.py has the ratio.
- `defer_signals`: the sessions of SQL stores. An interrupted one can leave the database locked.
- `StorePaths`: the columns of a SQLite store that contain artifact paths. No public call changes
  the paths of existing experiments and runs after a project was moved.
- `has_experiments`: the table `experiments`. The public client would create missing tables.
- `chart_view_tag`, `front_tags`, `chart_link`, `run_link`, `artifact_link`: the tags and the
  addresses in which MLflow's UI stores a chart view, groups and colours runs and shows a file.
  There is no public call; a browser test verifies them.
- `is_serving`: the variable that MLflow's scoring server sets. There is no public call.
- `STORE_LOGGER`: the logger that writes a traceback for every database error.

VERSIONS names the minor versions that tests/mmq/tracking/test_mlflow_internals.py was run with;
the test fails with any other.
"""

import base64
import json
import os
import sqlite3
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
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


# --- views in the UI -----------------------------------------------------------------------------
SECTION = "mmq"
CARD_HEIGHT = 360  # pixels: one chart on a screen of 768
WIDTH = "width"  # params `width.PART` in words, which MLflow draws at equal distances
FRONT_TAG = "mmq.front"
FRONT_COLORS = {"front": "#0b6e99", "dominated": "#9aa5b1"}  # descending: the front comes first


def width_text(bits: str) -> str:
    """A width as a level of parallel coordinates, which are sorted as text."""
    return f"{int(bits):02} bits" if bits.isdecimal() else bits


def _view_id(study: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"mmq/{study}").hex


@dataclass(frozen=True, slots=True)
class ChartView:
    """The content of a study's saved view.

    trials: the MLflow filter of its trials. parts: what has bits. score: name of the metric.
    size: the metric on the x axis. has_drop: whether trials have `drop`, the loss against the
    unquantized model.
    """

    study: str
    trials: str
    parts: Sequence[str]
    score: str
    size: str = "stored_bpw"
    has_drop: bool = False


def chart_view_tag(view: ChartView) -> tuple[str, str]:
    """Key and value of the experiment tag that holds a study's chart view."""
    state = json.dumps(_state(view)).encode()
    now = int(time.time() * 1000)
    value = {
        "name": f"front of {view.study}",
        "createdAt": now,
        "updatedAt": now,
        "state": f"deflate;{base64.b64encode(zlib.compress(state)).decode()}",
    }
    return f"mlflow.sharedViewState.{_view_id(view.study)}", json.dumps(value)


def chart_link(server: str, experiment_id: str, study: str) -> str:
    """Address of the experiment page with the study's chart view."""
    # nothing else in the query: a filter there makes the UI drop the saved charts
    query = (
        f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={_view_id(study)}"
    )
    return f"{server}/#/experiments/{experiment_id}/runs?{query}"


def run_link(server: str, experiment_id: str, run_id: str) -> str:
    """Address of a run's page."""
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def artifact_link(server: str, experiment_id: str, run_id: str, path: str) -> str:
    """Address of a page that shows one of a run's artifacts."""
    run = f"{server}/#/experiments/{experiment_id}/runs/{run_id}"
    return f"{run}/artifacts/{path}?workflowType=machine_learning"


def _scatter(x: str, y: str) -> dict[str, Any]:
    axes = {"xaxis": x, "yaxis": y}
    card = {name: {"key": key, "type": "METRIC", "index": 0} for name, key in axes.items()}
    return {"type": "SCATTER", "uuid": f"mmq-{x}-{y}", **card}


def _cards(view: ChartView) -> list[dict[str, Any]]:
    """The front, the allocations as parallel coordinates, and the score against nominal bits.

    The first chart has the drop, if there is one: MLflow's toolbar always covers the corner at
    the top right, where a plateau of scores is, and where no trial with a large drop is.
    """
    parallel = {
        "type": "PARALLEL",
        "uuid": "mmq-parallel",
        "selectedParams": [f"{WIDTH}.{name}" for name in view.parts],
        "selectedMetrics": [view.size, "score"],
        "showAllRuns": True,
    }
    shared = {"deleted": False, "isGenerated": False, "metricSectionId": SECTION}
    first = _scatter(view.size, "drop" if view.has_drop else "score")
    cards = [first, parallel, _scatter("bpw", "score")]
    return [{**card, **shared, "runsCountToCompare": 200} for card in cards]


def _group_by_front() -> dict[str, Any]:
    """Both groups open: runs in a closed group are not in the charts."""
    return {
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": FRONT_TAG}],
        },
        "groupsExpanded": {f"tag.{FRONT_TAG}.{name}": True for name in FRONT_COLORS},
        "useGroupedValuesInCharts": False,
    }


def _state(view: ChartView) -> dict[str, Any]:
    """The experiment page's state in MLflow's own field names: filter, columns, charts."""
    params = [f"bits.{name}" for name in view.parts]
    metrics = ("bpw", "stored_bpw", "score", "score_low", "score_high")
    section = {
        "uuid": SECTION,
        "name": f"{view.score} against size",
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": 1,
        "cardHeight": CARD_HEIGHT,
    }
    return {
        "searchFilter": view.trials,
        "orderByKey": f"tags.`{FRONT_TAG}`",  # the page loads 100 trials: the front is among them
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            "attributes.`Created`",
            *(f"params.`{name}`" for name in params),
            *(f"metrics.`{name}`" for name in metrics),
        ],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "SHOWALL",
        "runsVisibilityMap": {},
        "viewMaximized": False,
        "runListHidden": True,  # else the front has half the width at 1366 pixels
        "isAccordionReordered": True,
        **_group_by_front(),
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
        "compareRunCharts": _cards(view),
        "compareRunSections": [section],
    }


def front_tags(group: str) -> dict[str, str]:
    """A trial's tags by which the view groups and colours it. group: of FRONT_COLORS."""
    return {FRONT_TAG: group, "mlflow.runColor": FRONT_COLORS[group]}
