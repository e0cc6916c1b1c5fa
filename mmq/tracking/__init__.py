"""MLflow: the only package that imports it. Studies are parent runs, trials nested ones."""

from mmq.tracking.chosen import applied, register
from mmq.tracking.connection import connect, server_address, ui_command
from mmq.tracking.runs import Run, TrialRun, plain_run, single_run
from mmq.tracking.studies import StudyRun, asked_of, known_study, study_run

__all__ = [
    "Run",
    "StudyRun",
    "TrialRun",
    "applied",
    "asked_of",
    "connect",
    "known_study",
    "plain_run",
    "register",
    "server_address",
    "single_run",
    "study_run",
    "ui_command",
]
