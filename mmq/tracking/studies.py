"""Studies: a parent run with nested trial runs, reopened when the study resumes."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.fronts import Point, baseline, pareto_front, size_metric
from mmq.artifacts import unlogged
from mmq.errors import InputError
from mmq.eval_spec import EvalSpec
from mmq.record import TrialRecord, TrialSpec
from mmq.system.process import owner
from mmq.system.secrets import redact
from mmq.tracking.connection import connect, server_address, shown_uri
from mmq.tracking.contact import RESUME_HINT, ending_cleanly, explained
from mmq.tracking.late_logging import log_unlogged
from mmq.tracking.launched import VARIABLE, adopt
from mmq.tracking.mlflow_ui import (
    FRONT_TAG,
    ChartView,
    artifact_link,
    chart_link,
    chart_view_tag,
    front_tags,
    run_link,
    run_page,
)
from mmq.tracking.offline import (
    STORE_ERRORS,
    best_effort,
    reason,
    short_timeouts,
    unreachable,
)
from mmq.tracking.params import SIGNATURE, another_study, shared_params, signature
from mmq.tracking.queries import all_runs, trial_filter
from mmq.tracking.runs import (
    Run,
    TrialRun,
    closing,
    command_run,
    create_run,
    status_of,
)
from mmq.tracking.subjects import trial_name
from mmq.tracking.trials import end_trial_runs, fetch_record
from mmq.tracking.unquantized import UnquantizedOutputs

log = logging.getLogger(__name__)
FRONT_PLOT = "front.html"


class StudyRun(Run):
    """The parent run of a study: it has the front, and the trials are nested under it."""

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
        self.parts: Sequence[str] = ()  # their names; empty for the components
        self.request = ""  # the command line that repeats the request
        self.has_others: Callable[[], bool] = lambda: False  # do other processes search it?
        self._unquantized = UnquantizedOutputs(client, experiment_id, study)
        self._launcher = launcher  # the run of `mlflow run` that resumes an older study

    @contextmanager
    def trial_run(self, spec: TrialSpec, **tags: str) -> Iterator[TrialRun]:
        """A nested run, its params logged before the work, so that a crash leaves a FAILED run.

        If the store becomes unavailable after the trial was recorded, the trial is logged later.
        """
        own = self.trial_tags(spec.eval_spec.key, spec.allocation) | front_tags("dominated")
        run = create_run(self.client, self.experiment_id, trial_name(spec), own | tags)
        trial = TrialRun(self.client, self.experiment_id, run)
        try:
            with closing(trial):
                trial.start(spec, self.parts)
                trial.unquantized = self._unquantized.of(spec)
                yield trial
        except STORE_ERRORS as error:
            if not (unreachable(error) and unlogged.is_staged(run)):
                raise
            log.warning("%s is logged later: %s", spec.allocation, reason(error))
        else:
            log_unlogged(self.client)

    def trial_tags(self, eval_spec: str, allocation: BitAllocation) -> dict[str, str]:
        """Tags of a trial's run in this study. eval_spec: its key."""
        return {
            "mmq.kind": "trial",
            "mmq.study": self.study,
            "mmq.eval_spec": eval_spec,
            "mmq.allocation": str(allocation),
            "mlflow.parentRunId": self.run_id,
        }

    def finished(self) -> dict[tuple[str, str], str]:
        """Ids of this study's finished runs, by the eval spec's key and the allocation."""
        query = f"{trial_filter(self.study)} and attributes.status = 'FINISHED'"
        return {
            (run.data.tags["mmq.eval_spec"], run.data.tags["mmq.allocation"]): run.info.run_id
            for run in all_runs(self.client, [self.experiment_id], query)
        }

    def end_trial(self, spec: TrialSpec, record: TrialRecord | None) -> None:
        """End the runs of a trial whose process is gone. record: what it saved, if anything."""
        log_unlogged(self.client)
        tags = {"mmq.eval_spec": spec.eval_spec.key, "mmq.allocation": str(spec.allocation)}
        end_trial_runs(self.run_id, tags, record)

    def record(self, run_id: str) -> TrialRecord | None:
        """The record that one of this study's runs was logged with; None if it cannot be read."""
        return fetch_record(run_id)

    def save_view(self, points: Sequence[Point], score: str, has_drop: bool = False) -> None:
        """Save a chart view of this study in the experiment. score: name of the metric."""
        trials = trial_filter(self.study)
        view = ChartView(self.study, trials, self.parts, score, size_metric(points), has_drop)
        key, value = chart_view_tag(view)
        self.client.set_experiment_tag(self.experiment_id, key, value)

    def mark_front(self, points: Sequence[Point], drops: bool = True) -> None:
        """Tag the trials on the front, which the chart view groups and colours.

        drops: also log how much each one's score is below the unquantized model's. Trials that
        have the right tag and drop already are not written again.
        """
        front = {point.allocation for point in pareto_front(points)}
        scores = {point.allocation: point.score for point in points}
        reference = baseline(points) if drops else None
        runs = all_runs(self.client, [self.experiment_id], trial_filter(self.study))
        for trial in runs:
            allocation = trial.data.tags["mmq.allocation"]
            group = "front" if allocation in front else "dominated"
            tags = front_tags(group) if trial.data.tags.get(FRONT_TAG) != group else {}
            drop = {}
            if reference and allocation in scores and "drop" not in trial.data.metrics:
                drop["drop"] = round(reference.score - scores[allocation], 6)
            if tags or drop:
                Run(self.client, self.experiment_id, trial.info.run_id).log(None, drop, tags)

    def describe(self, text: str) -> None:
        """The description that the UI shows first; it ends with the request."""
        request = f"\n\nAsked: `{self.request}`" if self.request else ""
        text = redact(text + request)
        super().describe(text)
        if self._launcher is not None:
            link = run_page(self.experiment_id, self.run_id)
            note = f"{text.splitlines()[0]}\n\nResumes the study in [run {self.run_id}]({link})."
            self.client.set_tag(self._launcher.run_id, "mlflow.note.content", note)

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.client.get_experiment(self.experiment_id).name)

    def reopen(self) -> None:
        """Make this process the owner of the run, which another one may have ended."""
        self.client.update_run(self.run_id, status="RUNNING")
        self.log(tags={"mmq.owner": owner()})

    @property
    def address(self) -> tuple[str, str]:
        """Tracking store (without a password) and id of this run."""
        return shown_uri(self.client.tracking_uri), self.run_id

    def link(self) -> str:
        """Address of the chart view in the UI."""
        return chart_link(server_address(), self.experiment_id, self.study)

    def plot_link(self) -> str:
        """Address of the interactive front in the UI."""
        return artifact_link(server_address(), self.experiment_id, self.run_id, FRONT_PLOT)

    def trial_link(self, point: Point) -> str:
        """Address of the page of a trial's run; "" if it has none."""
        if point.run_id is None:
            return ""
        return run_link(server_address(), self.experiment_id, point.run_id)

    def __enter__(self) -> "StudyRun":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run, unless other processes search the study: the last one ends it."""
        status = status_of(error)
        timeouts = short_timeouts() if error is not None else nullcontext()
        with best_effort(f"The run {self.run_id} was not ended"), timeouts:
            if not self.has_others():
                self.end(status)
            if self._launcher is not None:
                self._launcher.end(status)
        if error is not None and unreachable(error):
            raise InputError(f"{explained(error)} {RESUME_HINT}") from error


@ending_cleanly()
def study_run(
    experiment: str,
    study: str,
    eval_specs: Sequence[EvalSpec],
    parent: tuple[str, str] | None,
    kind: str = "search",
) -> StudyRun:
    """A study's parent run: the one that it has, that of `mlflow run`, or a new one.

    InputError if the study has one in another store or experiment, or if it was deleted: trials of
    one study stay together.
    """
    run = open_study(experiment, study, parent, f"{kind} {study}")
    if parent is None:
        run.log(params=shared_params(eval_specs), tags={SIGNATURE: signature(eval_specs, kind)})
        run.log_eval_spec(eval_specs[0])
        subjects = ", and ".join(dict.fromkeys(spec.subject for spec in eval_specs))
        run.describe(f"{kind}: {subjects}. The front follows after the first trials.")
    return run


@ending_cleanly()
def open_study(
    experiment: str, study: str, parent: tuple[str, str] | None, title: str
) -> StudyRun:
    """As `study_run`, without an eval spec."""
    client, experiment_id = connect(experiment)
    log_unlogged(client)
    tags = {"mmq.kind": "study", "mmq.study": study, "mmq.owner": owner()}
    if parent is None:
        run_id = command_run(client, experiment_id, title, tags)
        return StudyRun(client, experiment_id, run_id, study, None)
    run_id = _check_parent(client, experiment_id, study, parent)
    launcher = None
    if os.environ.get(VARIABLE) != run_id and (adopted := adopt(client, experiment_id)):
        launcher = Run(client, experiment_id, adopted)
        launcher.log(
            tags={"mmq.kind": "continuation", "mmq.continues": study, "mmq.owner": owner()}
        )
        client.update_run(adopted, name=f"resumes {study}")
    client.update_run(run_id, status="RUNNING")
    run = StudyRun(client, experiment_id, run_id, study, launcher)
    run.log(tags=tags)
    return run


@ending_cleanly()
def find_study(
    experiment: str, study: str, eval_specs: Sequence[EvalSpec] = (), kind: str = ""
) -> tuple[str, str] | None:
    """Tracking store and id of the parent run that a study has in this experiment, if any.

    eval_specs, kind: its own, to be checked; InputError if the study of this name has others.
    """
    client, experiment_id = connect(experiment)
    query = f"tags.`mmq.study` = '{study}' and tags.`mmq.kind` = 'study'"
    runs = client.search_runs([experiment_id], query, max_results=1)
    if not runs:
        return None
    if eval_specs and runs[0].data.tags.get(SIGNATURE) != signature(eval_specs, kind):
        raise InputError(another_study(study, runs[0].data.params, eval_specs))
    return shown_uri(client.tracking_uri), runs[0].info.run_id


def _check_parent(
    client: MlflowClient, experiment_id: str, study: str, parent: tuple[str, str]
) -> str:
    uri, run_id = parent
    hint = "Use the same one again, or choose another --study to start a new study."
    try:  # a store that was moved or copied has another address and the same runs
        info = client.get_run(run_id).info
    except MlflowException as error:
        if unreachable(error):
            raise
        if uri != shown_uri(client.tracking_uri):
            raise InputError(
                f"study: {study!r} is logged to the MLflow store {uri}. {hint}"
            ) from error
        raise InputError(
            f"study: {study!r} is logged to the MLflow run {run_id}, which does not exist. {hint}"
        ) from error
    if info.lifecycle_stage != "active":
        raise InputError(
            f"study: {study!r} is logged to the MLflow run {run_id}, which was deleted. {hint}"
        )
    if info.experiment_id != experiment_id:
        name = client.get_experiment(info.experiment_id).name
        raise InputError(f"study: {study!r} is logged to the experiment {name!r}. {hint}")
    return run_id
