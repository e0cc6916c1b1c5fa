"""Runs: opened before the work, closed with what came of it, reaped where a process died."""

import getpass
import logging
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag

from mmq.contracts import Evaluation, LayerReport
from mmq.errors import TakenOver, TooLarge
from mmq.eval_spec import EvalSpec
from mmq.record import Pruned, TrialRecord, TrialSpec
from mmq.system import checksums
from mmq.system.process import owner
from mmq.system.secrets import redact
from mmq.tracking import files, views
from mmq.tracking import offline as outage
from mmq.tracking.connection import connect, server_address
from mmq.tracking.contact import ending_cleanly
from mmq.tracking.launched import adopt, link_tags
from mmq.tracking.params import question_params, versions

log = logging.getLogger(__name__)
PARAM_LIMIT = 500  # characters, as in MLflow's stores
OWN_TABLES = {"mlflow.loggedArtifacts": files.table_tag(files.PREDICTIONS, files.LAYERS)}


def _now() -> int:
    return int(time.time() * 1000)


class Run:
    """A run of the tracking store, written to without MLflow's global state."""

    ended_well = "FINISHED"  # its status where its block ends without an error

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
            params=[Param(k, redact(str(v))[:PARAM_LIMIT]) for k, v in (params or {}).items()],
            metrics=[Metric(k, float(v), now, step) for k, v in (metrics or {}).items()],
            tags=[RunTag(k, redact(v)) for k, v in (tags or {}).items()],
        )

    def log_folder(self, folder: Path) -> None:
        """All files of a folder as artifacts."""
        with outage.files_of_store():
            self.client.log_artifacts(self.run_id, str(folder))

    def log_layers(self, layers: Sequence[LayerReport]) -> None:
        """The layer table, shown by the UI."""
        with tempfile.TemporaryDirectory() as folder:
            files.write_layers(Path(folder), layers)
            self.log_folder(Path(folder))
        self.log(tags={"mlflow.loggedArtifacts": files.table_tag(files.LAYERS)})

    def log_evaluation(self, evaluation: Evaluation, facts: Mapping[str, Any]) -> None:
        """Scores per sample and predictions, in files as a trial's; facts: what was evaluated."""
        metrics = {name: asdict(metric) for name, metric in evaluation.metrics.items()}
        per_sample = {k: [float(x) for x in v] for k, v in evaluation.per_sample.items()}
        record = {"primary": evaluation.primary, "metrics": metrics, "per_sample": per_sample}
        with tempfile.TemporaryDirectory() as folder:
            files.write_facts(Path(folder), {"facts": dict(facts), **record}, self.run_id)
            files.write_predictions(Path(folder), evaluation.predictions)
            self.log_folder(Path(folder))
        self.log(tags={"mlflow.loggedArtifacts": files.table_tag(files.PREDICTIONS)})

    def log_table(self, name: str, rows: list[dict[str, Any]]) -> None:
        """A table, shown by the UI."""
        self.log_tables({name: rows})

    def log_tables(self, tables: Mapping[str, list[dict[str, Any]]]) -> None:
        """Tables by the names of their files, shown by the UI."""
        with tempfile.TemporaryDirectory() as folder:
            for name, rows in tables.items():
                files.write_table(Path(folder) / name, rows)
            self.log_folder(Path(folder))
        self.log(tags={"mlflow.loggedArtifacts": files.table_tag(*tables)})

    def describe(self, text: str) -> None:
        """The description that the UI shows first."""
        self.client.set_tag(self.run_id, "mlflow.note.content", redact(text))

    def log_question(self, question: EvalSpec) -> None:
        """The evaluation set as a dataset input."""
        source = CodeDatasetSource({"mlflow.source.name": question.data})
        dataset = MetaDataset(
            source, name=f"{question.data} ({question.task})", digest=question.data_fingerprint
        )
        tags = [InputTag("mlflow.data.context", "evaluation")]
        inputs = [DatasetInput(dataset._to_mlflow_entity(), tags)]
        self.client.log_inputs(self.run_id, inputs)

    def run_link(self) -> str:
        """Address of this run's page in the UI."""
        return views.run_link(server_address(), self.experiment_id, self.run_id)

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)


class TrialRun(Run):
    """The run of one trial."""

    def start(self, spec: TrialSpec, parts: Sequence[str] = ()) -> None:
        """Log what will be done; parts: what gets a width each, the components if empty."""
        allocation = spec.allocation
        bits = {f"bits.{name}": allocation.within(name) for name in parts or allocation.components}
        params = bits | question_params(spec.question)
        self.log(params=params, tags={"mmq.allocation": str(allocation)})
        self.log_question(spec.question)

    def finish(self, record: TrialRecord) -> None:
        """Log a trial's scores, sizes, seconds and files, which stay on disk until they are."""
        started = time.perf_counter()
        with outage.staging(self.run_id) as folder:
            files.write_record(folder, record, self.run_id)
        self.log_folder(outage.staged(self.run_id))
        facts = record.to_json()
        facts["seconds"] |= {"log": time.perf_counter() - started}
        self._log_result(facts)

    def _log_result(self, facts: Mapping[str, Any]) -> None:
        self.log(metrics=trial_metrics(facts))
        if "pruned" in facts:  # KILLED: whoever reads finished trials does not take it for one
            pruned = Pruned(**facts["pruned"])
            self.ended_well = "KILLED"
            self.log(metrics={"partial/samples": pruned.samples}, tags={"mmq.state": "PRUNED"})
            self.describe(str(pruned))

    def finish_copy(self, facts: Mapping[str, Any]) -> None:
        """Log what another run recorded of the same trial; its predictions stay there."""
        with outage.staging(self.run_id) as folder:
            files.write_facts(folder, facts, self.run_id)
        self.log_folder(outage.staged(self.run_id))
        self._log_result(facts)

    def log_facts(self, facts: Mapping[str, Any]) -> None:
        """Log a trial's record, without predictions and layers."""
        with tempfile.TemporaryDirectory() as folder:
            files.write_facts(Path(folder), facts, self.run_id)
            self.log_folder(Path(folder))
        self._log_result(facts)

    def finish_staged(self, folder: Path) -> None:
        """Log and end what `finish` began and an outage, or a kill, cut off.

        FileNotFoundError or Unusable where the record is damaged. Other damaged files are left
        out, with a warning.
        """
        damaged = checksums.check_folder(folder, self.run_id)
        if files.RECORD in damaged:
            raise damaged[files.RECORD]
        for name, problem in damaged.items():
            log.warning("%s is damaged (%s): not logged", folder / name, problem)
        facts = files.read_facts(folder / files.RECORD, self.run_id)
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
        self._log_result(facts)
        self.end(self.ended_well)


def trial_metrics(facts: Mapping[str, Any]) -> dict[str, float]:
    """A trial's metrics from its record as plain data; scores of a stopped one are partial/*."""
    prefix = "partial/" if "pruned" in facts else ""
    size = facts["size"]
    values: dict[str, float | None] = {
        "bpw": size["bpw"],
        "stored_bpw": size["stored_bpw"],
        "size_gib": size["gib"],
        "stored_gib": size["stored_gib"],
    }
    scores = {"score": facts["metrics"][facts["primary"]], **facts["metrics"]}
    for name, metric in scores.items():
        found = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
        values |= {prefix + key: metric[part] for key, part in found.items()}
    values |= facts["errors"]
    values |= {f"seconds/{stage}": spent for stage, spent in facts["seconds"].items()}
    return {name: round(value, 6) for name, value in values.items() if value is not None}


def status_of(error: BaseException | None) -> str:
    """The status of a run whose block ended like this."""
    if error is None:
        return "FINISHED"
    ended = isinstance(error, KeyboardInterrupt | SystemExit | TakenOver | TooLarge)
    return "KILLED" if ended else "FAILED"


@contextmanager
def closing(run: Run) -> Iterator[None]:
    """End a run with the status that fits how its block ended."""
    try:
        yield
    except BaseException as error:
        if not (outage.unreachable(error) and outage.is_staged(run.run_id)):
            _end_quickly(run, error)
        raise
    run.end(run.ended_well)
    outage.unstage(run.run_id)


def _end_quickly(run: Run, error: BaseException) -> None:
    """End a run that failed; where the store is away, the run stays open until it is reaped."""
    with outage.optional(f"The run {run.run_id} was not ended"), outage.hasty():
        if status_of(error) == "FAILED":
            run.log(tags={"mmq.error": redact(traceback.format_exc())[-4000:]})
        run.end(status_of(error))


def user() -> str:
    """Who runs this; "unknown" where the system has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no user for its number
        return "unknown"


def create(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
    """A new run with its user, owner and tables; its id."""
    source = {"mlflow.user": user(), "mlflow.source.name": "mmq"}
    run = client.create_run(
        experiment_id, run_name=name, tags={**source, **OWN_TABLES, "mmq.owner": owner(), **tags}
    )
    return str(run.info.run_id)


def own_run(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
    """The id of a command's own run: that of `mlflow run` under this name, or a new one."""
    if run_id := adopt(client, experiment_id):
        client.update_run(run_id, name=name)
        run = Run(client, experiment_id, run_id)
        run.log(tags={**OWN_TABLES, "mmq.owner": owner(), **tags})
        return run_id
    return create(client, experiment_id, name, {**link_tags(client, experiment_id), **tags})


@contextmanager
def single_run(experiment: str, spec: TrialSpec) -> Iterator[TrialRun]:
    """A run of its own for one trial; adopts the run of `mlflow run`."""
    from mmq.tracking.left import log_left  # it logs runs of this module

    client, experiment_id = connect(experiment)
    log_left(client)
    run_id = own_run(client, experiment_id, str(spec.allocation), {"mmq.kind": "single"})
    run = TrialRun(client, experiment_id, run_id)
    with ending_cleanly(), closing(run):
        run.start(spec)
        yield run


@contextmanager
def plain_run(
    experiment: str, name: str, params: Mapping[str, Any], kind: str = "plain"
) -> Iterator[Run]:
    """A run that is no trial, such as a training; adopts the run of `mlflow run`."""
    client, experiment_id = connect(experiment)
    run = Run(client, experiment_id, own_run(client, experiment_id, name, {"mmq.kind": kind}))
    with ending_cleanly(), closing(run):
        run.log(params={**params, **versions()})
        yield run
