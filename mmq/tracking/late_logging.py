"""Logs runs from their staged files: those whose store was unavailable, or process was killed."""

import logging
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.artifacts import unlogged
from mmq.record import TrialRecord
from mmq.studies.records import Records
from mmq.system.home import home
from mmq.system.sealed import Unusable
from mmq.tracking.offline import (
    ArtifactsUnavailable,
    best_effort,
    reason,
    short_timeouts,
    unreachable,
)
from mmq.tracking.runs import TrialRun

log = logging.getLogger(__name__)


def log_unlogged(client: MlflowClient | None = None) -> None:
    """Log the trials that wait, if the store is available. client: of the store in use by default.

    A run that MLflow refuses, or whose files are damaged, is moved to the stuck ones, so that it
    does not block the others.
    """
    client = client or MlflowClient()
    with short_timeouts():
        for run_id, folder in unlogged.claim_staged():
            try:
                _log_one(client, run_id, folder)
            except (MlflowException, OSError, Unusable, ValueError, LookupError) as error:
                if not unreachable(error):
                    _give_up(run_id, error)
                    continue
                log.warning("Run %s waits to be logged: %s", run_id, reason(error))
                if not isinstance(error, ArtifactsUnavailable):
                    return


def _log_one(client: MlflowClient, run_id: str, folder: Path) -> None:
    status = _status(client, run_id)
    if status is None:  # it belongs to another store
        return
    trial = TrialRun(client, "", run_id)
    try:
        if status != "KILLED":
            trial.finish_staged(folder)
    except (FileNotFoundError, Unusable) as problem:
        if not (record := _recorded(client, run_id)):
            raise
        log.warning("%s is damaged (%s): only its record is logged", folder, problem)
        trial.log_record(record)
        trial.end(trial.ended_well)
    unlogged.unstage(run_id)


def _status(client: MlflowClient, run_id: str) -> str | None:
    """A run's status; None if this store has no such run."""
    try:
        return str(client.get_run(run_id).info.status)
    except MlflowException as error:
        if unreachable(error):
            raise
        return None


def _recorded(client: MlflowClient, run_id: str) -> TrialRecord | None:
    """A run's record in mmq's home, if it is there."""
    tags = client.get_run(run_id).data.tags
    allocation = tags.get("mmq.allocation", "")
    for folder in (Path("records") / tags.get("mmq.eval_spec", "-"),
                   Path("studies") / tags.get("mmq.study", "-")):  # fmt: skip
        record = Records(home() / folder).get_any(allocation)
        if record is not None and record.run_id == run_id:
            return record
    return None


def _give_up(run_id: str, error: Exception) -> None:
    why = reason(error)
    if "deleted" in why:
        why += f" Restore it with `mlflow runs restore --run-id {run_id}`."
    with best_effort(f"The files of run {run_id} were not moved"):
        unlogged.set_aside(run_id, why)
