"""Runs that were recorded and not logged: logged later, from their staged files."""

import logging
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.record import TrialRecord
from mmq.studies.records import Records
from mmq.system.home import home
from mmq.system.sealed import Unusable
from mmq.tracking import offline as outage
from mmq.tracking.runs import TrialRun

log = logging.getLogger(__name__)


def log_left(client: MlflowClient) -> None:
    """Log the trials that were recorded while the store was away, if it is back.

    One that MLflow refuses, or whose files are damaged, is set aside: it blocks no other.
    """
    with outage.hasty():
        for run_id, folder in outage.left():
            try:
                _log_one(client, run_id, folder)
            except (MlflowException, OSError, Unusable, ValueError, LookupError) as error:
                if not outage.unreachable(error):
                    _set_aside(run_id, error)
                    continue
                log.warning("Run %s waits to be logged: %s", run_id, outage.reason(error))
                if not isinstance(error, outage.FilesAway):
                    return


def log_waiting() -> None:
    """Log what can be logged, with the store in use."""
    log_left(MlflowClient())


def _log_one(client: MlflowClient, run_id: str, folder: Path) -> None:
    status = outage.status(client, run_id)
    if status is None:  # it belongs to another store
        return
    trial = TrialRun(client, "", run_id)
    try:
        if status != "KILLED":
            trial.finish_staged(folder)
    except (FileNotFoundError, Unusable) as problem:
        if not (record := _recorded(client, run_id)):
            raise
        log.warning("%s is damaged (%s): the run has its record alone", folder, problem)
        trial.log_record(record)
        trial.end(trial.ended_well)
    outage.unstage(run_id)


def _recorded(client: MlflowClient, run_id: str) -> TrialRecord | None:
    """The record that mmq's home has of a run."""
    tags = client.get_run(run_id).data.tags
    allocation = tags.get("mmq.allocation", "")
    for folder in (Path("records") / tags.get("mmq.eval_spec", "-"),
                   Path("studies") / tags.get("mmq.study", "-")):  # fmt: skip
        record = Records(home() / folder).get_any(allocation)
        if record is not None and record.run_id == run_id:
            return record
    return None


def _set_aside(run_id: str, error: Exception) -> None:
    why = outage.reason(error)
    if "deleted" in why:
        why += f" Restore it with `mlflow runs restore --run-id {run_id}`."
    with outage.optional(f"The run {run_id} was not set aside"):
        outage.set_aside(run_id, why)
