"""Studies: a parent run, its trials nested under it, found again when the study goes on."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.allocation.allocation import BitAllocation
from mmq.errors import InputError
from mmq.eval_spec import EvalSpec
from mmq.record import TrialRecord, TrialSpec
from mmq.system.hashing import digest
from mmq.system.process import owner
from mmq.system.secrets import redact
from mmq.tracking import offline as outage
from mmq.tracking import views
from mmq.tracking.connection import connect, server_address, shown_uri
from mmq.tracking.contact import AGAIN, ending_cleanly, explained
from mmq.tracking.launched import VARIABLE, adopt
from mmq.tracking.left import log_left
from mmq.tracking.params import eval_spec_params
from mmq.tracking.queries import all_runs
from mmq.tracking.runs import Run, TrialRun, closing, create, own_run, status_of
from mmq.tracking.trials import fetch_record

log = logging.getLogger(__name__)


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
        self.parts: Sequence[str] = ()  # what gets a width each; empty: the components
        self.others: Callable[[], bool] = lambda: False  # whether someone else works in it
        self._launcher = launcher  # the project run that continues an older parent

    @contextmanager
    def trial_run(self, spec: TrialSpec, **tags: str) -> Iterator[TrialRun]:
        """A nested run, its params logged before the work: a crash leaves a FAILED run.

        Where the store goes away after the trial was recorded, it is logged by a later one.
        """
        own = self.trial_tags(spec.eval_spec.key, spec.allocation)
        run = create(self.client, self.experiment_id, str(spec.allocation), own | tags)
        trial = TrialRun(self.client, self.experiment_id, run)
        try:
            with closing(trial):
                trial.start(spec, self.parts)
                yield trial
        except outage.STORE_ERRORS as error:
            if not (outage.unreachable(error) and outage.is_staged(run)):
                raise
            log.warning("%s is logged later: %s", spec.allocation, outage.reason(error))
        else:
            log_left(self.client)

    def trial_tags(self, eval_spec: str, allocation: BitAllocation) -> dict[str, str]:
        """What tells a nested run as a trial of this study; eval_spec: its key."""
        return {
            "mmq.kind": "trial",
            "mmq.study": self.study,
            "mmq.eval_spec": eval_spec,
            "mmq.allocation": str(allocation),
            "mlflow.parentRunId": self.run_id,
        }

    def finished(self) -> dict[tuple[str, str], str]:
        """Ids of this study's finished runs, by the eval spec's key and the allocation."""
        query = f"{views.trial_filter(self.study)} and attributes.status = 'FINISHED'"
        return {
            (run.data.tags["mmq.eval_spec"], run.data.tags["mmq.allocation"]): run.info.run_id
            for run in all_runs(self.client, [self.experiment_id], query)
        }

    def record(self, run_id: str) -> TrialRecord | None:
        """The record that one of this study's runs was logged with, if it can be had."""
        return fetch_record(run_id)

    def save_view(self, components: Sequence[str], score: str) -> None:
        """Keep a chart view of this study in the experiment."""
        key, value = views.chart_view_tag(self.study, components, score)
        self.client.set_experiment_tag(self.experiment_id, key, value)

    def describe(self, text: str) -> None:
        """The description that the UI shows first."""
        text = redact(text)
        super().describe(text)
        if self._launcher is not None:
            link = f"#/experiments/{self.experiment_id}/runs/{self.run_id}"
            note = f"{text.splitlines()[0]}\n\nContinues the study in [run {self.run_id}]({link})."
            self.client.set_tag(self._launcher.run_id, "mlflow.note.content", note)

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.client.get_experiment(self.experiment_id).name)

    def keep_open(self) -> None:
        """Whoever works on the study owns its run, even if another one ended it."""
        self.client.update_run(self.run_id, status="RUNNING")
        self.log(tags={"mmq.owner": owner()})

    @property
    def address(self) -> tuple[str, str]:
        """Tracking store (without a password) and id of this run."""
        return shown_uri(self.client.tracking_uri), self.run_id

    def link(self) -> str:
        """Address of the chart view in the UI."""
        return views.chart_link(server_address(), self.experiment_id, self.study)

    def __enter__(self) -> "StudyRun":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run, unless others go on with the study: the last one does it."""
        status = status_of(error)
        patience = outage.hasty() if error is not None else nullcontext()
        with outage.optional(f"The run {self.run_id} was not ended"), patience:
            if not self.others():
                self.end(status)
            if self._launcher is not None:
                self._launcher.end(status)
        if error is not None and outage.unreachable(error):
            raise InputError(f"{explained(error)} {AGAIN}") from error


@ending_cleanly()
def study_run(
    experiment: str,
    study: str,
    eval_specs: Sequence[EvalSpec],
    parent: tuple[str, str] | None,
    kind: str = "search",
) -> StudyRun:
    """A study's parent run: made, or adopted from `mlflow run`, or the one that it has already.

    InputError where the study has one in another store or experiment, or where it was deleted:
    trials of one study are never spread.
    """
    run = open_study(experiment, study, parent, f"{kind} {study}")
    if parent is None:
        run.log(params=shared_params(eval_specs), tags={"mmq.asked": asked_of(eval_specs, kind)})
        run.log_eval_spec(eval_specs[0])
    return run


@ending_cleanly()
def open_study(
    experiment: str, study: str, parent: tuple[str, str] | None, title: str
) -> StudyRun:
    """As `study_run`, without an eval spec."""
    client, experiment_id = connect(experiment)
    log_left(client)
    tags = {"mmq.kind": "study", "mmq.study": study, "mmq.owner": owner()}
    if parent is None:
        run_id = own_run(client, experiment_id, title, tags)
        return StudyRun(client, experiment_id, run_id, study, None)
    run_id = _known_parent(client, experiment_id, study, parent)
    launcher = None
    if os.environ.get(VARIABLE) != run_id and (adopted := adopt(client, experiment_id)):
        launcher = Run(client, experiment_id, adopted)
        launcher.log(
            tags={"mmq.kind": "continuation", "mmq.continues": study, "mmq.owner": owner()}
        )
        client.update_run(adopted, name=f"continues {study}")
    client.update_run(run_id, status="RUNNING")
    run = StudyRun(client, experiment_id, run_id, study, launcher)
    run.log(tags=tags)
    return run


def shared_params(eval_specs: Sequence[EvalSpec]) -> dict[str, Any]:
    """The eval specs' params; where they differ, all values in a row."""
    params = [eval_spec_params(eval_spec) for eval_spec in eval_specs]
    names = dict.fromkeys(name for each in params for name in each)
    return {
        name: ", ".join(dict.fromkeys(str(each[name]) for each in params if name in each))
        for name in names
    }


def asked_of(eval_specs: Sequence[EvalSpec], kind: str) -> str:
    """What tells one study from another of the same name."""
    return f"{kind} {digest(sorted(eval_spec.key for eval_spec in eval_specs))}"


@ending_cleanly()
def known_study(experiment: str, study: str, asked: str | None = None) -> tuple[str, str] | None:
    """Tracking store and id of the parent run that a study has in this experiment, if any.

    asked: of `asked_of`; InputError where a study of this name is there and asks something else.
    """
    client, experiment_id = connect(experiment)
    query = f"tags.`mmq.study` = '{study}' and tags.`mmq.kind` = 'study'"
    found = client.search_runs([experiment_id], query, max_results=1)
    if not found:
        return None
    if asked is not None and found[0].data.tags.get("mmq.asked") != asked:
        raise InputError(
            f"study: {study!r} is there already, of another kind or with other options (model, "
            f"data, quantizers, their options). Choose another --study, or leave it empty."
        )
    return shown_uri(client.tracking_uri), found[0].info.run_id


def _known_parent(
    client: MlflowClient, experiment_id: str, study: str, parent: tuple[str, str]
) -> str:
    uri, run_id = parent
    hint = "Use that one again, or choose another --study to begin anew."
    try:  # a store that was moved or copied has another address and the same runs
        info = client.get_run(run_id).info
    except MlflowException as error:
        if outage.unreachable(error):
            raise
        if uri != shown_uri(client.tracking_uri):
            raise InputError(
                f"study: {study!r} is logged to the MLflow store {uri}. {hint}"
            ) from error
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
