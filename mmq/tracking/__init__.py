"""MLflow: the only package that imports it. Studies are parent runs, trials nested ones."""

from mmq.tracking.runs import StudyRun, TrialRun, single_run, study_run

__all__ = ["StudyRun", "TrialRun", "single_run", "study_run"]
