"""Runs of a search's trials, of any process or machine."""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from mmq.record import TrialRecord
from mmq.system.sealed import Unusable
from mmq.tracking.files import RECORD, read_record
from mmq.tracking.offline import STORE_ERRORS, short_timeouts, unreachable
from mmq.tracking.runs import TrialRun

log = logging.getLogger(__name__)
OPTUNA_TRIAL = "mmq.optuna_trial"  # tag: a trial's number in Optuna


def _runs(client: MlflowClient, parent: str, tags: Mapping[str, str]) -> list[MlflowRun]:
    """The runs of one trial: several if a request whose response was lost was repeated."""
    experiment = client.get_run(parent).info.experiment_id
    pairs = {"mlflow.parentRunId": parent, **tags}.items()
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in pairs)
    return list(client.search_runs([experiment], query))


def end_trial_runs(parent: str, tags: Mapping[str, str], record: TrialRecord | None) -> bool:
    """End the runs of a stale trial: FINISHED with its record, KILLED without one.

    tags: those that identify the trial in its study. False if the store is unavailable.
    """
    client = MlflowClient()
    try:
        with short_timeouts():
            for run in _runs(client, parent, tags):
                run_id, status = run.info.run_id, run.info.status
                for task in _runs(client, run_id, {"mmq.kind": "task"}):
                    if task.info.status == "RUNNING":
                        client.set_terminated(task.info.run_id, "KILLED")
                if record is not None and record.run_id == run_id:
                    if status != "FINISHED":  # KILLED, too: another process took it for lost
                        trial = TrialRun(client, run.info.experiment_id, run_id)
                        trial.log_record(record)
                        trial.end(trial.ended_well)
                elif status == "RUNNING":
                    client.set_terminated(run_id, "KILLED")
    except STORE_ERRORS as error:
        log.warning("The run of a released trial could not be ended: %s", error)
        return not unreachable(error)
    return True


def trial_record(parent: str, number: int) -> TrialRecord | None:
    """The record of a trial that was logged completely; None if there is no such run."""
    client = MlflowClient()
    try:
        with short_timeouts():
            tags = {OPTUNA_TRIAL: str(number)}
            runs = [r for r in _runs(client, parent, tags) if r.info.status == "FINISHED"]
    except STORE_ERRORS as error:
        log.warning("The run of trial %d cannot be read: %s", number, error)
        return None
    return fetch_record(runs[0].info.run_id) if runs else None


def fetch_record(run_id: str) -> TrialRecord | None:
    """A trial's record from its run; None, with a warning, if it cannot be read."""
    try:
        with short_timeouts(), tempfile.TemporaryDirectory() as folder:
            path = MlflowClient().download_artifacts(run_id, RECORD, folder)
            return read_record(Path(path), run_id)
    except (*STORE_ERRORS, OSError, Unusable) as error:
        log.warning("The record of run %s cannot be read: %s", run_id, error)
        return None
