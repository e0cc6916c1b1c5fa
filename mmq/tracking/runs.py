"""MLflow runs: opened before the work, ended with its results or its error."""

import getpass
import json
import logging
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from mmq.allocation.widths_list import brief_text
from mmq.artifacts import unlogged
from mmq.contracts import Evaluation, ImageRef, LayerReport
from mmq.errors import TakenOver, TooLarge
from mmq.eval_spec import EvalSpec
from mmq.record import TrialRecord, TrialResult, TrialSpec
from mmq.system import checksums
from mmq.system.process import owner
from mmq.system.secrets import redact
from mmq.tracking import files
from mmq.tracking.connection import connect, server_address
from mmq.tracking.contact import ending_cleanly
from mmq.tracking.launched import adopt, link_tags
from mmq.tracking.metrics import score_metrics, trial_metrics
from mmq.tracking.mlflow_ui import run_link
from mmq.tracking.offline import (
    best_effort,
    logged_later,
    short_timeouts,
    unreachable,
    writing_artifacts,
)
from mmq.tracking.params import eval_spec_params, versions, width_params
from mmq.tracking.subjects import trial_name

log = logging.getLogger(__name__)
PARAM_LIMIT = 500  # characters, as in MLflow's stores
OWN_TABLES = {"mlflow.loggedArtifacts": files.table_tag(files.PREDICTIONS, files.LAYERS)}


def _now() -> int:
    return int(time.time() * 1000)


class Run:
    """A run in the tracking store, written without MLflow's global state."""

    ended_well = "FINISHED"  # its status if its block ends without an error

    def __init__(self, client: MlflowClient, experiment_id: str, run_id: str) -> None:
        self.client, self.experiment_id, self.run_id = client, experiment_id, run_id

    def log(
        self,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Log everything in one call: on SQLite, one call per value costs a second per trial."""
        if not (params or metrics or tags):
            return
        now = _now()
        self.client.log_batch(
            self.run_id,
            params=[Param(k, redact(str(v))[:PARAM_LIMIT]) for k, v in (params or {}).items()],
            metrics=[Metric(k, float(v), now, step) for k, v in (metrics or {}).items()],
            tags=[RunTag(k, redact(v)) for k, v in (tags or {}).items()],
        )

    def log_folder(self, folder: Path) -> None:
        """Log all files of a folder as artifacts."""
        with writing_artifacts():
            self.client.log_artifacts(self.run_id, str(folder))

    def log_layers(self, layers: Sequence[LayerReport]) -> None:
        """Log the layer table, which the UI renders."""
        with tempfile.TemporaryDirectory() as folder:
            files.write_layers(Path(folder), layers)
            self.log_folder(Path(folder))
        self.log(tags={"mlflow.loggedArtifacts": files.table_tag(files.LAYERS)})

    def log_evaluation(self, evaluation: Evaluation, facts: Mapping[str, Any]) -> None:
        """Log scores; as files, scores per sample and predictions. facts: what was evaluated."""
        with tempfile.TemporaryDirectory() as folder:
            files.write_evaluation(Path(folder), evaluation, facts, self.run_id)
            files.write_predictions(Path(folder), evaluation.predictions)
            self.log_folder(Path(folder))
        self.log(
            metrics=score_metrics(evaluation.primary, evaluation.metrics),
            tags={"mlflow.loggedArtifacts": files.table_tag(files.PREDICTIONS)},
        )

    def log_table(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Log a table, which the UI renders."""
        self.log_tables({name: rows})

    def log_pictured_table(
        self, name: str, rows: list[dict[str, Any]], pictures: Sequence[Sequence[ImageRef]]
    ) -> None:
        """Log a table with the pictures of each row, side by side, in its first column."""
        with tempfile.TemporaryDirectory() as folder:
            files.write_pictured_table(Path(folder) / name, rows, pictures)
            self.log_folder(Path(folder))
        self.log(tags={"mlflow.loggedArtifacts": files.table_tag(name)})

    def log_tables(self, tables: Mapping[str, list[dict[str, Any]]]) -> None:
        """Log tables by file name, which the UI renders."""
        with tempfile.TemporaryDirectory() as folder:
            for name, rows in tables.items():
                files.write_table(Path(folder) / name, rows)
            self.log_folder(Path(folder))
        self.log(tags={"mlflow.loggedArtifacts": files.table_tag(*tables)})

    def describe(self, text: str) -> None:
        """Set the description, which the UI shows first."""
        self.client.set_tag(self.run_id, "mlflow.note.content", redact(text))

    def log_eval_spec(self, eval_spec: EvalSpec) -> None:
        """Log the evaluation set as a dataset input."""
        dataset = Dataset(
            name=f"{eval_spec.data} ({eval_spec.task})",
            digest=eval_spec.data_fingerprint,
            source_type="code",
            source=json.dumps({"tags": {"mlflow.source.name": eval_spec.data}}),
        )
        tags = [InputTag("mlflow.data.context", "evaluation")]
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])

    def run_link(self) -> str:
        """Address of this run's page in the UI."""
        return run_link(server_address(), self.experiment_id, self.run_id)

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)


class TrialRun(Run):
    """The run of one trial. unquantized: the unquantized model's outputs, if they are logged."""

    unquantized: Mapping[str, str] = files.NOTHING

    def start(self, spec: TrialSpec, parts: Sequence[str] = ()) -> None:
        """Log what the trial evaluates. parts: names of the parts; the components if empty."""
        allocation = spec.allocation
        widths = {name: allocation.within(name) for name in parts or allocation.components}
        params = width_params(widths) | eval_spec_params(spec.eval_spec)
        self.log(params=params, tags={"mmq.allocation": str(allocation)})
        self.log_eval_spec(spec.eval_spec)

    @contextmanager
    def task_run(self, label: str, spec: TrialSpec, **tags: str) -> Iterator["TrialRun"]:
        """The run of one of several tasks, nested under this one."""
        own = {
            "mmq.kind": "task",
            "mmq.task": label,
            "mmq.eval_spec": spec.eval_spec.key,
            "mmq.allocation": str(spec.allocation),
            "mlflow.parentRunId": self.run_id,
        }
        name = f"{label}: {brief_text(str(spec.allocation))}"
        run = TrialRun(
            self.client,
            self.experiment_id,
            create_run(self.client, self.experiment_id, name, own | tags),
        )
        with logged_later(run.run_id, name), closing(run):
            run.start(spec)
            yield run

    def finish(self, result: TrialResult) -> TrialRecord:
        """Log a trial's scores, sizes, seconds and files; the files stay on disk until then.

        Returns the record as it was logged, with the seconds that logging took.
        """
        started, record = time.perf_counter(), result.record.in_run(self.run_id)
        with unlogged.staging(self.run_id) as folder:
            files.write_record(folder, record)
            files.write_details(folder, result.details, self.unquantized)
        self.log_folder(unlogged.staged(self.run_id))
        more = {"seconds/log": time.perf_counter() - started, **result.details.observations}
        self._log_result(record, more)
        return record

    def _log_result(self, record: TrialRecord, more: Mapping[str, float] | None = None) -> None:
        self.log(metrics=trial_metrics(record) | {k: round(v, 6) for k, v in (more or {}).items()})
        if record.pruned is not None:  # KILLED: it must not count as a finished trial
            self.ended_well = "KILLED"
            partial = {"partial/samples": record.pruned.samples}
            self.log(metrics=partial, tags={"mmq.state": "PRUNED"})
            self.describe(str(record.pruned))

    def finish_copy(self, record: TrialRecord) -> None:
        """Log the record of the same trial from another run, which has the details."""
        record = record.in_run(self.run_id)
        with unlogged.staging(self.run_id) as folder:
            files.write_record(folder, record)
        self.log_folder(unlogged.staged(self.run_id))
        self._log_result(record)

    def log_record(self, record: TrialRecord) -> None:
        """Log a trial's record without its details."""
        record = record.in_run(self.run_id)
        with tempfile.TemporaryDirectory() as folder:
            files.write_record(Path(folder), record)
            self.log_folder(Path(folder))
        self._log_result(record)

    def finish_staged(self, folder: Path) -> None:
        """Log and end a run from the files of an interrupted `finish`.

        FileNotFoundError or Unusable if the record is damaged. Other damaged files are left out,
        with a warning.
        """
        damaged = checksums.check_folder(folder, self.run_id)
        if files.RECORD in damaged:
            raise damaged[files.RECORD]
        for name, problem in damaged.items():
            log.warning("%s is damaged (%s): not logged", folder / name, problem)
        record = files.read_record(folder / files.RECORD, self.run_id)
        with tempfile.TemporaryDirectory() as other:
            if damaged:
                folder = Path(shutil.copytree(
                    folder, Path(other) / "sound",
                    ignore=lambda where, names: [
                        name for name in names
                        if (Path(where) / name).relative_to(folder).as_posix() in damaged
                    ],
                ))  # fmt: skip
            self.log_folder(folder)
        self._log_result(record)
        self.end(self.ended_well)


def status_of(error: BaseException | None) -> str:
    """The status of a run whose block ended with this error, or without one."""
    if error is None:
        return "FINISHED"
    ended = isinstance(error, KeyboardInterrupt | SystemExit | TakenOver | TooLarge)
    return "KILLED" if ended else "FAILED"


@contextmanager
def closing(run: Run) -> Iterator[None]:
    """End a run when its block ends, with the matching status."""
    try:
        yield
    except BaseException as error:
        if not (unreachable(error) and unlogged.is_staged(run.run_id)):
            _end_quickly(run, error)
        raise
    run.end(run.ended_well)
    unlogged.unstage(run.run_id)


def _end_quickly(run: Run, error: BaseException) -> None:
    """End a failed run; if the store is unavailable, a later command ends it."""
    with best_effort(f"The run {run.run_id} was not ended"), short_timeouts():
        if status_of(error) == "FAILED":
            run.log(tags={"mmq.error": redact(traceback.format_exc())[-4000:]})
        run.end(status_of(error))


def user() -> str:
    """The user's name; "unknown" if the system has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, the user id may have no name
        return "unknown"


def create_run(
    client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]
) -> str:
    """Create a run with its user, owner and tables, and return its id."""
    source = {"mlflow.user": user(), "mlflow.source.name": "mmq"}
    run = client.create_run(
        experiment_id, run_name=name, tags={**source, **OWN_TABLES, "mmq.owner": owner(), **tags}
    )
    return str(run.info.run_id)


def command_run(
    client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]
) -> str:
    """The id of a command's run: that of `mlflow run`, adopted and renamed, or a new one."""
    if run_id := adopt(client, experiment_id):
        client.update_run(run_id, name=name)
        run = Run(client, experiment_id, run_id)
        run.log(tags={**OWN_TABLES, "mmq.owner": owner(), **tags})
        return run_id
    return create_run(client, experiment_id, name, {**link_tags(client, experiment_id), **tags})


@contextmanager
def single_run(experiment: str, spec: TrialSpec) -> Iterator[TrialRun]:
    """A run for a single trial; adopts the run of `mlflow run`."""
    from mmq.tracking.late_logging import log_unlogged  # it logs runs of this module

    client, experiment_id = connect(experiment)
    log_unlogged(client)
    run_id = command_run(client, experiment_id, trial_name(spec), {"mmq.kind": "single"})
    run = TrialRun(client, experiment_id, run_id)
    with ending_cleanly(), closing(run):
        run.start(spec)
        yield run


@contextmanager
def plain_run(
    experiment: str, name: str, params: Mapping[str, Any], kind: str = "plain"
) -> Iterator[Run]:
    """A run of a command without trials, such as a training; adopts the run of `mlflow run`."""
    client, experiment_id = connect(experiment)
    run_id = command_run(client, experiment_id, name, {"mmq.kind": kind})
    run = Run(client, experiment_id, run_id)
    with ending_cleanly(), closing(run):
        run.log(params={**params, **versions()})
        yield run
