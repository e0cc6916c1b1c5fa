"""The run in MLFLOW_RUN_ID: one of `mlflow run` is adopted once, one of a job is linked to."""

import logging
import os
import re
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from mmq.errors import InputError
from mmq.system.process import owner
from mmq.tracking.offline import short_timeouts, unreachable

log = logging.getLogger(__name__)
VARIABLE = "MLFLOW_RUN_ID"
DEFAULT = "mmq"  # the experiment if none is given
CLAIM = "mmq.adopted_by"  # a param: unlike a tag, it can be written only once
LAUNCHED_BY = "mmq.launched_by"  # tag: the run in MLFLOW_RUN_ID
_warned: set[str] = set()


def _warn_once(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        log.warning("%s", text)


def launching_run(client: MlflowClient) -> MlflowRun | None:
    """The run in MLFLOW_RUN_ID; None, with a warning, if the store has no such run."""
    run_id = os.environ.get(VARIABLE)
    if not run_id:
        return None
    try:
        run = client.get_run(run_id)
        problem = "was deleted" if run.info.lifecycle_stage != "active" else ""
    except MlflowException as error:
        if unreachable(error):
            raise
        problem = f"is not in the MLflow store in use ({error.message})"
    if not problem:
        return run
    uri = str(client.tracking_uri)
    relative = re.match(r"sqlite(\+\w+)?:///[^/:]", uri)
    hint = f" {uri} is a relative path: write sqlite:////ABSOLUTE/PATH." if relative else ""
    _warn_once(
        f"{VARIABLE}: the run {run_id} {problem}. This command logs to its own run; `unset "
        f"{VARIABLE}` stops this warning.{hint}"
    )
    return None


def is_project(run: MlflowRun) -> bool:
    """Whether `mlflow run` created the run."""
    return bool(run.data.tags.get("mlflow.source.type") == "PROJECT")


def started_by_mlflow_run() -> bool:
    """Whether `mlflow run` started this process; False if the store is unavailable."""
    try:
        with short_timeouts():
            run = launching_run(MlflowClient())
    except MlflowException:
        return False
    return run is not None and is_project(run)


def _used(run: MlflowRun) -> bool:
    """Whether mmq has logged to the run: a study's parent, a trial or another command's run."""
    return CLAIM in run.data.params or any(tag.startswith("mmq.") for tag in run.data.tags)


def adopt(client: MlflowClient, experiment_id: str) -> str | None:
    """The id of the run that `mlflow run` created for this command; None if there is none.

    The first command adopts it, while it is running. Other commands get None and a warning.
    """
    run = launching_run(client)
    if run is None or not is_project(run) or run.info.experiment_id != experiment_id:
        return None
    run_id, problem = str(run.info.run_id), ""
    if _used(run):
        problem = "belongs to another mmq command"
    elif run.info.status not in ("RUNNING", "SCHEDULED"):
        problem = f"has ended already ({run.info.status})"
    else:
        try:
            client.log_param(run_id, CLAIM, owner())
            return run_id
        except MlflowException as error:
            if unreachable(error):
                raise
            problem = "was adopted by another mmq command at the same moment"
    _warn_once(
        f"{VARIABLE}: the run {run_id} {problem}; this command logs to its own run. `unset "
        f"{VARIABLE}` stops this warning."
    )
    return None


def link_tags(client: MlflowClient, experiment_id: str) -> Mapping[str, str]:
    """Tags of a command's own run: the run that launched it, and a job's run as its parent."""
    run = launching_run(client)
    if run is None:
        return {}
    tags = {LAUNCHED_BY: str(run.info.run_id)}
    if run.info.experiment_id == experiment_id and not is_project(run) and not _used(run):
        tags["mlflow.parentRunId"] = str(run.info.run_id)
    return tags


def experiment_name(client: MlflowClient, requested: str) -> str:
    """The name of the experiment to use.

    The requested one; else that of the run in MLFLOW_RUN_ID; else MLFLOW_EXPERIMENT_NAME or
    MLFLOW_EXPERIMENT_ID; else "mmq". A warning reports that --experiment overrides MLFLOW_RUN_ID.
    """
    run = launching_run(client)
    launching = None if run is None else client.get_experiment(run.info.experiment_id).name
    if requested:
        if launching not in (None, requested):
            _warn_once(
                f"experiment: {VARIABLE} is a run of the experiment {launching!r}, but "
                f"--experiment is {requested!r}: this command logs to its own run there."
            )
        return requested
    if launching is not None:
        return str(launching)
    if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        return name
    if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        try:
            return str(client.get_experiment(number).name)
        except MlflowException as error:
            if unreachable(error):
                raise
            raise InputError(
                f"MLFLOW_EXPERIMENT_ID: the MLflow store in use has no experiment {number!r} "
                f"({error.message}). Choose one with --experiment, or `unset "
                f"MLFLOW_EXPERIMENT_ID`."
            ) from error
    return DEFAULT
