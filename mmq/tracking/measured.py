"""Measurements of exported models in MLflow: found by address, logged with the trial's run."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from mmq.analysis.measured import PREFIX, MeasuredPoint, heading, measured_figure
from mmq.errors import InputError
from mmq.tracking.contact import contacting, open_client
from mmq.tracking.model_registry import find_run
from mmq.tracking.queries import all_runs, trial_filter
from mmq.tracking.runs import Run
from mmq.tracking.subjects import score_name, subject


def exported_folder(address: str) -> Path:
    """Where the model of a run, or of models:/NAME@ALIAS, was exported to.

    The latest export of a trial; InputError if there is none.
    """
    with contacting():
        client = open_client()
        run = find_run(address)
        exports = [run] if run.data.tags.get("mmq.kind") == "export" else _exports(client, run)
    for export in exports:
        if "export.out" in export.data.params and export.info.status == "FINISHED":
            return Path(export.data.params["export.out"])
    raise InputError(
        f"run: {address} was not exported; run `mmq export --run {address}` first, or give the "
        f"folder: mmq measure FOLDER"
    )


def _exports(client: MlflowClient, trial: MlflowRun) -> list[MlflowRun]:
    """Runs that exported a trial, the latest first."""
    query = f"tags.`mmq.exported_from` = '{trial.info.run_id}' and tags.`mmq.kind` = 'export'"
    return list(all_runs(client, [trial.info.experiment_id], query))


def log_with_trial(
    run: Run, trial_run: str, target: str, metrics: Mapping[str, float], setting: str
) -> int:
    """Log a measurement with its trial's run, draw the front of the trial's study, and return how
    many measured trials it shows; 0 where the trial is of no study, or not in this store.

    metrics: by name. setting: engine, machine and workload; trials of different settings are not
    compared.
    """
    name = target.replace(":", "-")
    try:
        tags = run.client.get_run(trial_run).data.tags
    except MlflowException:  # a folder that was exported with another store
        return 0
    trial = Run(run.client, run.experiment_id, trial_run)
    trial.log(
        metrics={f"{PREFIX}/{name}/{key}": value for key, value in metrics.items()},
        tags={f"mmq.{PREFIX}.{name}": setting},
    )
    if not (study := tags.get("mmq.study")):
        return 0
    return _log_front(run, study, tags.get("mlflow.parentRunId", ""), name, setting)


def _log_front(run: Run, study: str, parent: str, name: str, setting: str) -> int:
    """Draw the measured trials of a study and log the figure with the study's run and this one."""
    query = f"{trial_filter(study)} and attributes.status = 'FINISHED'"
    trials = list(all_runs(run.client, [run.experiment_id], query))
    measured = [t for t in trials if t.data.tags.get(f"mmq.{PREFIX}.{name}") == setting]
    points = [_point(trial, name) for trial in measured]
    baselines = [t.data.metrics["score"] for t in trials if _is_unquantized(t)]
    unquantized = baselines[0] if baselines else None
    about = subject([trial.data.params for trial in measured]) or study
    title = heading(about, points, setting)
    label = score_name([trial.data.metrics for trial in measured])
    with tempfile.TemporaryDirectory() as folder:
        figure = measured_figure(points, label, title, unquantized)
        figure.savefig(Path(folder) / f"{PREFIX}-{name}.png")
        for run_id in filter(None, (parent, run.run_id)):
            Run(run.client, run.experiment_id, run_id).log_folder(Path(folder))
    return len(points)


def _is_unquantized(trial: MlflowRun) -> bool:
    return all(part.endswith("=16") for part in trial.data.tags["mmq.allocation"].split())


def _point(trial: MlflowRun, name: str) -> MeasuredPoint:
    values, allocation = trial.data.metrics, trial.data.tags["mmq.allocation"]
    ends = values.get("score_low"), values.get("score_high")
    return MeasuredPoint.of(allocation, values["score"], *ends, values, name)
