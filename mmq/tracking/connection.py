"""The tracking store: which one, which experiment, which runs of a study are in it."""

import logging
import os
import socket

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from mmq.errors import InputError
from mmq.tracking import views


def server_address() -> str:
    """The tracking server if there is one, else where `mlflow ui` will listen."""
    uri = str(mlflow.get_tracking_uri())
    return uri.rstrip("/") if uri.startswith("http") else views.DEFAULT_SERVER


def ui_command() -> str | None:
    """How to start the UI for the store in use; None where a server runs already."""
    uri = str(mlflow.get_tracking_uri())
    return None if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"


def _experiment(client: MlflowClient, name: str) -> str:
    """Id of an experiment, made where there is none; InputError if a deleted one has the name."""
    project_run = os.environ.get("MLFLOW_RUN_ID")
    if project_run:  # `mlflow run` has chosen the experiment
        return str(client.get_run(project_run).info.experiment_id)
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise InputError(
            f"experiment: {name!r} was deleted. Choose another name, restore it with `mlflow "
            f"experiments restore -x {found.experiment_id}`, or remove it with `mlflow gc`."
        )
    return str(found.experiment_id)


def connect(experiment: str) -> tuple[MlflowClient, str]:
    """A client and the experiment's id; InputError if the store cannot be used."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a new database is no news
    client = MlflowClient()
    try:
        return client, _experiment(client, experiment)
    except MlflowException as error:
        raise InputError(
            f"MLflow store {mlflow.get_tracking_uri()}: {error.message} "
            f"(set another one with MLFLOW_TRACKING_URI)"
        ) from error


def find_parent(client: MlflowClient, experiment_id: str, study: str) -> str | None:
    """The id of a study's parent run, if it has one."""
    runs = client.search_runs(
        [experiment_id],
        f"tags.`mmq.study` = '{study}' and tags.`mmq.kind` = 'study'",
        ViewType.ACTIVE_ONLY,
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    return str(runs[0].info.run_id) if runs else None


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def reap(client: MlflowClient, experiment_id: str, study: str) -> int:
    """End runs of a study whose process on this host is gone; how many there were."""
    host, count = socket.gethostname(), 0
    filter_string = f"tags.`mmq.study` = '{study}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment_id], filter_string, max_results=1000):
        tags = run.data.tags
        if tags.get("mmq.host") == host and not _alive(tags.get("mmq.pid", "0")):
            client.set_terminated(run.info.run_id, "KILLED")
            count += 1
    return count
