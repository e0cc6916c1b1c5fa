"""Runs of a search's trials, whichever process or machine opened them."""

import logging
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from mmq.record import TrialRecord
from mmq.system.sealed import Unusable
from mmq.tracking.files import RECORD, read_record
from mmq.tracking.offline import STORE_ERRORS, hasty, unreachable
from mmq.tracking.runs import TrialRun

log = logging.getLogger(__name__)
NUMBER = "mmq.optuna_trial"  # tag with the number that Optuna gave a trial


def _runs(client: MlflowClient, parent: str, number: int) -> list[MlflowRun]:
    """Those of one trial. Several: a request that the server had served was sent again."""
    experiment = client.get_run(parent).info.experiment_id
    query = f"tags.`mlflow.parentRunId` = '{parent}' and tags.`{NUMBER}` = '{number}'"
    return list(client.search_runs([experiment], query))


def settle_trial(parent: str, number: int, record: TrialRecord | None) -> bool:
    """End the runs of an abandoned trial: FINISHED with its record, KILLED without one.

    False where the store cannot be reached now.
    """
    client = MlflowClient()
    try:
        with hasty():
            for run in _runs(client, parent, number):
                run_id, status = run.info.run_id, run.info.status
                if record is not None and record.run_id == run_id:
                    if status != "FINISHED":  # KILLED, too: others took it for lost
                        trial = TrialRun(client, run.info.experiment_id, run_id)
                        trial.log_record(record)
                        trial.end(trial.ended_well)
                elif status == "RUNNING":
                    client.set_terminated(run_id, "KILLED")
    except STORE_ERRORS as error:
        log.warning("The run of trial %d could not be ended: %s", number, error)
        return not unreachable(error)
    return True


def trial_record(parent: str, number: int) -> TrialRecord | None:
    """The record of a trial that was logged whole; None where there is no such run."""
    client = MlflowClient()
    try:
        with hasty():
            found = [r for r in _runs(client, parent, number) if r.info.status == "FINISHED"]
    except STORE_ERRORS as error:
        log.warning("The run of trial %d could not be looked for: %s", number, error)
        return None
    return fetch_record(found[0].info.run_id) if found else None


def fetch_record(run_id: str) -> TrialRecord | None:
    """A trial's record from its run; None where it cannot be had."""
    try:
        with hasty(), tempfile.TemporaryDirectory() as folder:
            path = MlflowClient().download_artifacts(run_id, RECORD, folder)
            return read_record(Path(path), run_id)
    except (*STORE_ERRORS, OSError, Unusable) as error:
        log.warning("The record of run %s cannot be had: %s", run_id, error)
        return None
