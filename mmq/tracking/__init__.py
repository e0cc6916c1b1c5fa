"""MLflow: the only package that imports it. Studies are parent runs, trials nested ones."""

from mmq.tracking.connection import connect, server_address, ui_command
from mmq.tracking.launched import by_mlflow_run
from mmq.tracking.left import log_waiting
from mmq.tracking.links import places
from mmq.tracking.model_registry import applied, register
from mmq.tracking.offline import hasty, optional, refuses, unreachable
from mmq.tracking.runs import Run, TrialRun, plain_run, single_run
from mmq.tracking.studies import StudyRun, asked_of, known_study, study_run
from mmq.tracking.trials import fetch_record, settle_trial, trial_record

__all__ = [
    "Run",
    "StudyRun",
    "TrialRun",
    "applied",
    "asked_of",
    "by_mlflow_run",
    "connect",
    "fetch_record",
    "hasty",
    "known_study",
    "log_waiting",
    "optional",
    "places",
    "plain_run",
    "refuses",
    "register",
    "server_address",
    "settle_trial",
    "single_run",
    "study_run",
    "trial_record",
    "ui_command",
    "unreachable",
]
