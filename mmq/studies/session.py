"""A loaded model and its evaluator, ready to run trials; always closed at the end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.calibration_check import check_calibration
from mmq.artifacts.store import Store
from mmq.contracts import QuantReport
from mmq.eval_spec import EvalSpec
from mmq.models.loading import LoadedModel
from mmq.models.size import Size
from mmq.prepare import Prepared
from mmq.record import TrialRecord, TrialResult, TrialSpec
from mmq.studies.pruning import TaskPruner
from mmq.system.progress import notify
from mmq.system.signals import signals_deferred
from mmq.trial import run_trial

if TYPE_CHECKING:
    from mmq.tracking import StudyRun, TrialRun


# receives the layers and the size of a quantized model, and may raise; no layers if the trial was
# recorded by another study
CheckSize = Callable[[QuantReport | None, Size], None]


@dataclass(frozen=True, slots=True)
class Session:
    """One eval spec with its model and the store of its quantized blocks.

    load: returns the model, loaded at the first call.
    """

    prepared: Prepared
    load: Callable[[], LoadedModel]
    artifacts: Artifacts
    quiet: bool = False

    @property
    def model(self) -> LoadedModel:
        """The loaded model, which all sessions of a study share."""
        return self.load()

    def spec(self, allocation: BitAllocation) -> TrialSpec:
        """The trial of an allocation, written in the model's order of components."""
        return TrialSpec(
            self.prepared.eval_spec, allocation.over(self.prepared.skeleton.components)
        )

    def run(
        self,
        spec: TrialSpec,
        pruner: TaskPruner | None = None,
        check_size: CheckSize | None = None,
    ) -> TrialResult:
        """One trial, unlogged; see `run_trial`."""
        return run_trial(
            spec,
            self.model,
            self.artifacts,
            self.prepared.task,
            self.quiet,
            pruner,
            check_size,
        )

    def record(
        self,
        run: "StudyRun",
        allocation: BitAllocation,
        save: Callable[[TrialRecord], object],
        on_logged: Callable[[], None] | None = None,
        pruner: TaskPruner | None = None,
        check_size: CheckSize | None = None,
        more_metrics: Callable[[], Mapping[str, float]] = dict,
        **tags: str,
    ) -> TrialRecord:
        """One trial in a nested run of a study: evaluated, saved on disk, logged.

        on_logged: called at the end. more_metrics: logged with the trial's own. SIGINT and
        SIGTERM are deferred once the evaluation ends.
        """
        spec = self.spec(allocation)
        with ExitStack() as stack:
            with run.trial_run(spec, **tags) as trial:
                record, finish = self._evaluated(trial, spec, pruner, check_size)
                stack.enter_context(signals_deferred())
                save(record)
                trial.log(metrics=more_metrics())
                finish()
            if on_logged is not None:
                on_logged()
        return record

    def _evaluated(
        self,
        trial: "TrialRun",
        spec: TrialSpec,
        pruner: TaskPruner | None,
        check_size: CheckSize | None,
    ) -> tuple[TrialRecord, Callable[[], object]]:
        """The record of a trial in its run, and what logs it there."""
        result = self.run(spec, pruner, check_size)
        return result.record.in_run(trial.run_id), partial(trial.finish, result)


def show_prompt(eval_spec: EvalSpec) -> None:
    """Print the first prompt as the model reads it, so that a wrong one is noticed early."""
    if eval_spec.rendered_prompt:
        prompt = repr(eval_spec.rendered_prompt)
        notify(f"The first prompt as the model reads it: {prompt}")


@contextmanager
def opened(
    prepared: Sequence[Prepared], experiment: str = "", quiet: bool = False, lazy: bool = False
) -> Iterator[list[Session]]:
    """Contact the MLflow store, load the model once for all, and release everything at the end.

    prepared: eval specs that share model, evaluator and samples; each becomes a session. The store
    is contacted first: one that cannot be used is reported before a large model is loaded. lazy:
    load the model at its first use, which may never come if workers evaluate all trials.
    """
    from mmq.studies.joint_session import session_of  # it extends `Session`
    from mmq.tracking import connect

    first, store = prepared[0], Store.open()
    try:
        connect(experiment)
        if not quiet:
            show_prompt(first.eval_spec)
        load = cache(first.load)
        sessions = [session_of(p, load, p.artifacts(store, quiet), quiet) for p in prepared]
        if not lazy:
            for session in sessions:
                check_calibration(load(), session.artifacts)
        yield sessions
    finally:
        first.close()
