"""The tracking store: which one, which experiment, which runs of a study are in it."""

import logging
import os
import sys
import uuid
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.errors import InputError
from mmq.system.process import is_gone
from mmq.system.secrets import redact
from mmq.tracking import views
from mmq.tracking.contact import contacting, open_client
from mmq.tracking.database import ensure_database, store_file
from mmq.tracking.launched import experiment_name
from mmq.tracking.moved import MARK, RUNS
from mmq.tracking.offline import PATIENCE, TIMEOUT, WithoutTraceback, is_staged


def server_address() -> str:
    """The tracking server if there is one, else where `mlflow ui` will listen."""
    uri = str(mlflow.get_tracking_uri())
    return shown_uri(uri).rstrip("/") if uri.startswith("http") else views.DEFAULT_SERVER


def shown_uri(uri: str) -> str:
    """A store's address without its password: what may be printed or kept."""
    return redact(uri)


def ui_command() -> str | None:
    """How to start the UI for the store in use; None where a server runs already."""
    uri = str(mlflow.get_tracking_uri())
    if uri.startswith("http"):
        return None
    program = Path(sys.executable).with_name("mlflow")  # works without an activated environment
    return f"{program} ui --backend-store-uri {shown_uri(uri)}"


def _experiment(client: MlflowClient, asked: str) -> str:
    """Id of an experiment, made where there is none; InputError if a deleted one has the name."""
    name = experiment_name(client, asked)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, _place(), tags=_mark()))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:  # nor was it made by another process meanwhile
                raise
    if found.lifecycle_stage != "active":
        raise InputError(
            f"experiment: {name!r} was deleted. Choose another name, restore it with `mlflow "
            f"experiments restore -x {found.experiment_id}`, or remove it with `mlflow gc`."
        )
    for key, value in _mark().items():
        if found.tags.get(key) != value:
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def _mark() -> dict[str, str]:
    """Tags that show later whether the experiment's database was moved."""
    path = store_file()
    return {} if path is None else {MARK: str(path.resolve())}


def _place() -> str | None:
    """Where a new experiment's artifacts go: beside a local store; None for MLflow's own choice.

    MLflow takes the current folder, which is a temporary one for a fetched project.
    """
    path = store_file()
    if path is None or path.resolve().parent == Path.cwd():
        return None
    return str(path.resolve().parent / RUNS / uuid.uuid4().hex[:16])


def connect(experiment: str) -> tuple[MlflowClient, str]:
    """A client and the experiment's id; InputError if the store cannot be used.

    experiment: its name; "" for the default (see `experiment_name`). Runs that a killed process
    left open are ended on the way.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a new database is no news
    os.environ.setdefault(TIMEOUT, PATIENCE)
    errors = logging.getLogger("mlflow.store.db.utils")
    if not any(isinstance(each, WithoutTraceback) for each in errors.filters):
        errors.addFilter(WithoutTraceback())
    ensure_database()
    client = open_client()
    with contacting():
        experiment_id = _experiment(client, experiment)
        reap(client, experiment_id)
    return client, experiment_id


def reap(client: MlflowClient, experiment_id: str) -> int:
    """End mmq's runs whose process on this host is gone; how many there were.

    Those that only wait to be logged are no loss and are left alone.
    """
    count = 0
    running = client.search_runs(
        [experiment_id], "attributes.status = 'RUNNING'", max_results=1000
    )
    for run in running:
        run_id, who = run.info.run_id, run.data.tags.get("mmq.owner", "")
        if is_gone(who) and not is_staged(run_id):
            client.set_terminated(run_id, "KILLED")
            count += 1
    return count
