"""The tracking store in use: its address, its experiment, and stale runs in it."""

import logging
import os
import sys
import uuid
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.artifacts.unlogged import is_staged
from mmq.errors import InputError
from mmq.system.process import is_gone
from mmq.system.secrets import redact
from mmq.tracking.contact import contacting, open_client
from mmq.tracking.database import ensure_database, store_file
from mmq.tracking.launched import experiment_name
from mmq.tracking.mlflow_internals import STORE_LOGGER
from mmq.tracking.moved import MARK, RUNS
from mmq.tracking.offline import LONG_TIMEOUT, TIMEOUT, WithoutTraceback

LINKS = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
DEFAULT_SERVER = "http://127.0.0.1:5000"  # where `mlflow ui` listens


def server_address() -> str:
    """The tracking server, or the address where `mlflow ui` will listen."""
    uri = str(mlflow.get_tracking_uri())
    return shown_uri(uri).rstrip("/") if uri.startswith("http") else DEFAULT_SERVER


def shown_uri(uri: str) -> str:
    """A store's address without its password, which may be printed and stored."""
    return redact(uri)


def ui_command() -> str | None:
    """The command that starts the UI for the store in use; None if a server runs already."""
    uri = str(mlflow.get_tracking_uri())
    if uri.startswith("http"):
        return None
    program = Path(sys.executable).with_name("mlflow")  # works without an activated environment
    return f"{program} ui --backend-store-uri {shown_uri(uri)}"


def _experiment(client: MlflowClient, name: str) -> str:
    """Id of an experiment, created if missing; InputError if a deleted one has the name."""
    name = experiment_name(client, name)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, _artifact_location(), tags=_mark()))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:  # nor did another process create it at the same moment
                raise
    if experiment.lifecycle_stage != "active":
        raise InputError(
            f"experiment: {name!r} was deleted. Choose another name, restore it with `mlflow "
            f"experiments restore -x {experiment.experiment_id}`, or remove it with `mlflow gc`."
        )
    for key, value in _mark().items():
        if experiment.tags.get(key) != value:
            client.set_experiment_tag(experiment.experiment_id, key, value)
    return str(experiment.experiment_id)


def _mark() -> dict[str, str]:
    """Tags by which a later command notices that the experiment's database was moved."""
    path = store_file()
    return {} if path is None else {MARK: str(path.resolve())}


def _artifact_location() -> str | None:
    """Location of a new experiment's artifacts: next to a local store; None for MLflow's default.

    MLflow's default is the current folder, which is temporary for a project that it fetched.
    """
    path = store_file()
    if path is None or path.resolve().parent == Path.cwd():
        return None
    return str(path.resolve().parent / RUNS / uuid.uuid4().hex[:16])


def connect(experiment: str) -> tuple[MlflowClient, str]:
    """A client and the experiment's id; InputError if the store cannot be used.

    experiment: its name; "" for the default (see `experiment_name`). Runs that killed processes
    left open are ended.
    """
    logging.getLogger("alembic").setLevel(
        logging.WARNING
    )  # it reports every table of a new database
    os.environ.setdefault(TIMEOUT, LONG_TIMEOUT)
    os.environ.setdefault(LINKS, "true")  # mmq prints its own; each link is a request, too
    errors = logging.getLogger(STORE_LOGGER)
    errors.setLevel(logging.WARNING)  # it reports each step of creating a database
    if not any(isinstance(filter_, WithoutTraceback) for filter_ in errors.filters):
        errors.addFilter(WithoutTraceback())
    ensure_database()
    client = open_client()
    with contacting():
        experiment_id = _experiment(client, experiment)
        end_stale_runs(client, experiment_id)
    return client, experiment_id


def end_stale_runs(client: MlflowClient, experiment_id: str) -> int:
    """End mmq's runs whose process on this host is gone, and return how many there were.

    Runs that are complete and wait to be logged are left open.
    """
    count = 0
    running = client.search_runs(
        [experiment_id], "attributes.status = 'RUNNING'", max_results=1000
    )
    for run in running:
        run_id, process = run.info.run_id, run.data.tags.get("mmq.owner", "")
        if is_gone(process) and not is_staged(run_id):
            client.set_terminated(run_id, "KILLED")
            count += 1
    return count
