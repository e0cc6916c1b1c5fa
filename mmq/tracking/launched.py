"""The run that MLFLOW_RUN_ID names: one of `mlflow run`, adopted once, or a job's, linked to."""

import logging
import os
import re
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from mmq.errors import InputError
from mmq.system.process import owner
from mmq.tracking.offline import hasty, unreachable

log = logging.getLogger(__name__)
VARIABLE = "MLFLOW_RUN_ID"
DEFAULT = "mmq"  # the experiment where none is asked for
CLAIM = "mmq.adopted_by"  # a param: unlike a tag, it is written once, whoever else tries
LAUNCHED_BY = "mmq.launched_by"  # tag with the run that MLFLOW_RUN_ID named
_warned: set[str] = set()


def _warn_once(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        log.warning("%s", text)


def launching_run(client: MlflowClient) -> MlflowRun | None:
    """The run that MLFLOW_RUN_ID names; None, with a warning, where the store has no such run."""
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
        f"{VARIABLE}: the run {run_id} {problem}. This command logs to a run of its own; `unset "
        f"{VARIABLE}` ends this warning.{hint}"
    )
    return None


def is_project(run: MlflowRun) -> bool:
    """Whether `mlflow run` made it, for the command that it starts."""
    return bool(run.data.tags.get("mlflow.source.type") == "PROJECT")


def by_mlflow_run() -> bool:
    """Whether `mlflow run` started this process; False where the store is away."""
    try:
        with hasty():
            run = launching_run(MlflowClient())
    except MlflowException:
        return False
    return run is not None and is_project(run)


def _used(run: MlflowRun) -> bool:
    """Whether mmq has logged to it: it is a study's parent, a trial or another command's run."""
    return CLAIM in run.data.params or any(tag.startswith("mmq.") for tag in run.data.tags)


def adopt(client: MlflowClient, experiment_id: str) -> str | None:
    """The id of the run that `mlflow run` made for this command; None where there is none.

    It is adopted once, by the first command, while it runs. Other commands get None and a warning.
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
        f"{VARIABLE}: the run {run_id} {problem}; this command logs to a run of its own. `unset "
        f"{VARIABLE}` ends this warning."
    )
    return None


def link_tags(client: MlflowClient, experiment_id: str) -> Mapping[str, str]:
    """Tags of a run of our own: which run launched it; a job's run has it nested."""
    run = launching_run(client)
    if run is None:
        return {}
    tags = {LAUNCHED_BY: str(run.info.run_id)}
    if run.info.experiment_id == experiment_id and not is_project(run) and not _used(run):
        tags["mlflow.parentRunId"] = str(run.info.run_id)
    return tags


def experiment_name(client: MlflowClient, asked: str) -> str:
    """The name of the experiment to use.

    The one asked for; else that of the run in MLFLOW_RUN_ID; else MLFLOW_EXPERIMENT_NAME's or
    MLFLOW_EXPERIMENT_ID's; else "mmq". Where --experiment overrules MLFLOW_RUN_ID, a warning says
    so.
    """
    run = launching_run(client)
    launching = None if run is None else client.get_experiment(run.info.experiment_id).name
    if asked:
        if launching not in (None, asked):
            _warn_once(
                f"experiment: {VARIABLE} names a run of the experiment {launching!r}, but "
                f"--experiment asks for {asked!r}: this command logs to a run of its own there."
            )
        return asked
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
