"""Tracking with MLflow, which no other package imports: studies as parent runs, trials nested."""

from mmq.tracking.connection import connect, server_address, ui_command
from mmq.tracking.late_logging import log_unlogged
from mmq.tracking.launched import started_by_mlflow_run
from mmq.tracking.links import browse_lines
from mmq.tracking.mlflow_ui import run_link
from mmq.tracking.model_registry import register, trial_options
from mmq.tracking.offline import best_effort, refuses, short_timeouts, unreachable
from mmq.tracking.runs import Run, TrialRun, plain_run, single_run
from mmq.tracking.studies import StudyRun, find_study, study_run
from mmq.tracking.trials import OPTUNA_TRIAL, end_trial_runs, fetch_record, trial_record

__all__ = [
    "OPTUNA_TRIAL",
    "Run",
    "StudyRun",
    "TrialRun",
    "best_effort",
    "browse_lines",
    "connect",
    "end_trial_runs",
    "fetch_record",
    "find_study",
    "log_unlogged",
    "plain_run",
    "refuses",
    "register",
    "run_link",
    "server_address",
    "short_timeouts",
    "single_run",
    "started_by_mlflow_run",
    "study_run",
    "trial_options",
    "trial_record",
    "ui_command",
    "unreachable",
]
