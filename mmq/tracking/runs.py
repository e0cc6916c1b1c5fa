"""Runs: opened before the work, closed with what came of it, reaped where a process died."""

import getpass
import logging
import os
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from mmq.contracts import LayerReport
from mmq.errors import InputError
from mmq.owner import owner
from mmq.tracking import files, views
from mmq.tracking.connection import connect, server_address, shown_uri
from mmq.tracking.params import question_params, versions
from mmq.trial import Question, TrialRecord, TrialSpec

log = logging.getLogger(__name__)
PARAM_LIMIT = 500  # characters, as in MLflow's stores


def _now() -> int:
    return int(time.time() * 1000)


class Run:
    """A run of the tracking store, written to without MLflow's global state."""

    def __init__(self, client: MlflowClient, experiment_id: str, run_id: str) -> None:
        self.client, self.experiment_id, self.run_id = client, experiment_id, run_id

    def log(
        self,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Everything in one call: on SQLite a call a value costs a second a trial."""
        now = _now()
        self.client.log_batch(
            self.run_id,
            params=[Param(k, str(v)[:PARAM_LIMIT]) for k, v in (params or {}).items()],
            metrics=[Metric(k, float(v), now, step) for k, v in (metrics or {}).items()],
            tags=[RunTag(k, v) for k, v in (tags or {}).items()],
        )

    def log_folder(self, folder: Path) -> None:
        """All files of a folder as artifacts."""
        self.client.log_artifacts(self.run_id, str(folder))

    def log_layers(self, layers: Sequence[LayerReport]) -> None:
        """The layer table, shown by the UI."""
        with tempfile.TemporaryDirectory() as folder:
            files.write_layers(Path(folder), layers)
            self.log_folder(Path(folder))
        self.log(tags={"mlflow.loggedArtifacts": files.table_tag(files.LAYERS)})

    def log_question(self, question: Question) -> None:
        """The evaluation set as a dataset input."""
        source = CodeDatasetSource({"mlflow.source.name": question.data})
        dataset = MetaDataset(
            source, name=f"{question.data} ({question.task})", digest=question.data_fingerprint
        )
        tags = [InputTag("mlflow.data.context", "evaluation")]
        inputs = [DatasetInput(dataset._to_mlflow_entity(), tags)]
        self.client.log_inputs(self.run_id, inputs)

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)


class TrialRun(Run):
    """The run of one trial."""

    def start(self, spec: TrialSpec) -> None:
        """Log what will be done."""
        bits = {f"bits.{name}": bits for name, bits in spec.allocation.bits}
        self.log(params=bits | question_params(spec.question))
        self.log_question(spec.question)

    def finish(self, record: TrialRecord) -> None:
        """Log a trial's scores, sizes, seconds and files."""
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            files.write_record(Path(folder), record)
            self.log_folder(Path(folder))
        seconds = dict(record.seconds) | {"log": time.perf_counter() - started}
        self.log(metrics=_metrics(record, seconds))


def _metrics(record: TrialRecord, seconds: Mapping[str, float]) -> dict[str, float]:
    size = record.size
    values: dict[str, float | None] = {
        "bpw": size.bpw,
        "stored_bpw": size.stored_bpw,
        "size_gib": size.gib,
        "stored_gib": size.stored_gib,
    }
    for name, metric in [("score", record.evaluation.score), *record.evaluation.metrics.items()]:
        values |= {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high}
    errors = [e for e in (layer.relative_error for layer in record.report.layers) if e is not None]
    values["relative_error"] = sum(errors) / len(errors) if errors else 0.0
    values |= {f"seconds/{stage}": spent for stage, spent in seconds.items()}
    return {name: round(value, 6) for name, value in values.items() if value is not None}


class StudyRun(Run):
    """The parent run of a study: trials are nested under it, the front is kept in it."""

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        run_id: str,
        study: str,
        launcher: Run | None,
    ) -> None:
        super().__init__(client, experiment_id, run_id)
        self.study = study
        self._launcher = launcher  # the project run that continues an older parent

    @contextmanager
    def trial_run(self, spec: TrialSpec, **tags: str) -> Iterator[TrialRun]:
        """A nested run, its params logged before the work: a crash leaves a FAILED run."""
        kind = {"mmq.kind": "trial", "mmq.study": self.study, "mlflow.parentRunId": self.run_id}
        run = _create(self.client, self.experiment_id, str(spec.allocation), kind | tags)
        trial = TrialRun(self.client, self.experiment_id, run)
        with _closing(trial):
            trial.start(spec)
            yield trial

    def save_view(self, components: Sequence[str], score: str) -> None:
        """Keep a chart view of this study in the experiment."""
        key, value = views.chart_view_tag(self.study, components, score)
        self.client.set_experiment_tag(self.experiment_id, key, value)

    def describe(self, text: str) -> None:
        """The description that the UI shows first."""
        self.client.set_tag(self.run_id, "mlflow.note.content", text)
        if self._launcher is not None:
            link = f"#/experiments/{self.experiment_id}/runs/{self.run_id}"
            note = f"{text.splitlines()[0]}\n\nContinues the study in [run {self.run_id}]({link})."
            self.client.set_tag(self._launcher.run_id, "mlflow.note.content", note)

    @property
    def address(self) -> tuple[str, str]:
        """Tracking store (without a password) and id of this run."""
        return shown_uri(self.client.tracking_uri), self.run_id

    def link(self) -> str:
        """Address of the chart view in the UI."""
        return views.chart_link(server_address(), self.experiment_id, self.study)

    def run_link(self) -> str:
        """Address of this run's page in the UI."""
        return views.run_link(server_address(), self.experiment_id, self.run_id)

    def __enter__(self) -> "StudyRun":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        status = _status(error)
        self.end(status)
        if self._launcher is not None:
            self._launcher.end(status)


def _status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"


@contextmanager
def _closing(run: Run) -> Iterator[None]:
    """End a run with the status that fits how its block ended."""
    try:
        yield
    except BaseException as error:
        if _status(error) == "FAILED":
            run.log(tags={"mmq.error": traceback.format_exc()[-4000:]})
        run.end(_status(error))
        raise
    run.end("FINISHED")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no user for its number
        return "unknown"


def _create(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
    user = {"mlflow.user": _user(), "mlflow.source.name": "mmq"}
    tables = {"mlflow.loggedArtifacts": files.table_tag(files.PREDICTIONS, files.LAYERS)}
    run = client.create_run(
        experiment_id, run_name=name, tags={**user, **tables, "mmq.owner": owner(), **tags}
    )
    return str(run.info.run_id)


def study_run(
    experiment: str, study: str, question: Question, parent: tuple[str, str] | None
) -> StudyRun:
    """A study's parent run: made, or adopted from `mlflow run`, or the one that it has already.

    InputError where the study has one in another store or experiment, or where it was deleted:
    trials of one study are never spread.
    """
    client, experiment_id = connect(experiment)
    tags = {"mmq.kind": "study", "mmq.study": study, "mmq.owner": owner()}
    project_run = os.environ.get("MLFLOW_RUN_ID")
    if parent is None:
        run_id = project_run or _create(client, experiment_id, f"search {study}", tags)
        run = StudyRun(client, experiment_id, run_id, study, None)
        client.update_run(run_id, name=f"search {study}")
        run.log(params=question_params(question), tags=tags)
        run.log_question(question)
        return run
    run_id = _known_parent(client, experiment_id, study, parent)
    launcher = None
    if project_run and project_run != run_id:
        launcher = Run(client, experiment_id, project_run)
        launcher.log(
            tags={"mmq.kind": "continuation", "mmq.continues": study, "mmq.owner": owner()}
        )
        client.update_run(project_run, name=f"continues {study}")
    client.update_run(run_id, status="RUNNING")
    run = StudyRun(client, experiment_id, run_id, study, launcher)
    run.log(tags=tags)
    return run


def _known_parent(
    client: MlflowClient, experiment_id: str, study: str, parent: tuple[str, str]
) -> str:
    uri, run_id = parent
    hint = "Use that one again, or choose another --study to begin anew."
    if uri != shown_uri(client.tracking_uri):
        raise InputError(f"study: {study!r} is logged to the MLflow store {uri}. {hint}")
    try:
        info = client.get_run(run_id).info
    except MlflowException as error:
        raise InputError(
            f"study: the MLflow run {run_id} that {study!r} is logged to is gone. {hint}"
        ) from error
    if info.lifecycle_stage != "active":
        raise InputError(
            f"study: the MLflow run {run_id} that {study!r} is logged to was deleted. {hint}"
        )
    if info.experiment_id != experiment_id:
        name = client.get_experiment(info.experiment_id).name
        raise InputError(f"study: {study!r} is logged to the experiment {name!r}. {hint}")
    return run_id


@contextmanager
def single_run(experiment: str, spec: TrialSpec) -> Iterator[TrialRun]:
    """A run of its own for one trial; adopts the run of `mlflow run`."""
    client, experiment_id = connect(experiment)
    name = str(spec.allocation)
    tags = {"mmq.kind": "single", "mmq.owner": owner()}
    adopted = os.environ.get("MLFLOW_RUN_ID")
    run_id = adopted or _create(client, experiment_id, name, tags)
    run = TrialRun(client, experiment_id, run_id)
    with _closing(run):
        if adopted:
            client.update_run(run_id, name=name)
            tables = files.table_tag(files.PREDICTIONS, files.LAYERS)
            run.log(tags=tags | {"mlflow.loggedArtifacts": tables})
        run.start(spec)
        yield run


@contextmanager
def plain_run(experiment: str, name: str, params: Mapping[str, Any]) -> Iterator[Run]:
    """A run that is no trial, such as a training; adopts the run of `mlflow run`."""
    client, experiment_id = connect(experiment)
    adopted = os.environ.get("MLFLOW_RUN_ID")
    tags = {"mmq.kind": "plain", "mmq.owner": owner()}
    run = Run(client, experiment_id, adopted or _create(client, experiment_id, name, tags))
    with _closing(run):
        run.log(tags=tags)
        run.log(params={**params, **versions()})
        yield run
