"""The tracking store: which one, which experiment, which runs of a study are in it."""

import logging
import os
import re
import sys
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.errors import InputError
from mmq.owner import is_gone
from mmq.tracking import views
from mmq.tracking.database import ensure_database
from mmq.tracking.outage import WithoutTraceback, hasty, is_staged


def server_address() -> str:
    """The tracking server if there is one, else where `mlflow ui` will listen."""
    uri = str(mlflow.get_tracking_uri())
    return uri.rstrip("/") if uri.startswith("http") else views.DEFAULT_SERVER


def shown_uri(uri: str) -> str:
    """A store's address without its password: what may be printed or kept."""
    return re.sub(r"(://[^:/@]+:)[^@]+@", r"\1***@", uri)


def ui_command() -> str | None:
    """How to start the UI for the store in use; None where a server runs already."""
    uri = str(mlflow.get_tracking_uri())
    if uri.startswith("http"):
        return None
    program = Path(sys.executable).with_name("mlflow")  # works without an activated environment
    return f"{program} ui --backend-store-uri {shown_uri(uri)}"


def _experiment(client: MlflowClient, name: str) -> str:
    """Id of an experiment, made where there is none; InputError if a deleted one has the name."""
    project_run = os.environ.get("MLFLOW_RUN_ID")
    if project_run:  # `mlflow run` has chosen the experiment
        return str(client.get_run(project_run).info.experiment_id)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:  # nor was it made by another process meanwhile
                raise
    if found.lifecycle_stage != "active":
        raise InputError(
            f"experiment: {name!r} was deleted. Choose another name, restore it with `mlflow "
            f"experiments restore -x {found.experiment_id}`, or remove it with `mlflow gc`."
        )
    return str(found.experiment_id)


def connect(experiment: str) -> tuple[MlflowClient, str]:
    """A client and the experiment's id; InputError if the store cannot be used.

    Runs that a killed process left open are ended on the way.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a new database is no news
    errors = logging.getLogger("mlflow.store.db.utils")
    if not any(isinstance(each, WithoutTraceback) for each in errors.filters):
        errors.addFilter(WithoutTraceback())
    ensure_database()
    client = MlflowClient()
    try:
        with hasty():
            experiment_id = _experiment(client, experiment)
            reap(client, experiment_id)
        return client, experiment_id
    except MlflowException as error:
        raise InputError(
            f"MLflow store {shown_uri(mlflow.get_tracking_uri())}: {error.message} "
            f"(set another one with MLFLOW_TRACKING_URI)"
        ) from error


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
