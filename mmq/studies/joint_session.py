"""Trials of several tasks: one allocation in the model, one record and one run per task."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation, is_unquantized
from mmq.artifacts.artifacts import Artifacts
from mmq.errors import InputError
from mmq.models.loading import LoadedModel
from mmq.models.size import Size
from mmq.prepare import Prepared
from mmq.record import Pruned, TrialRecord, TrialSpec
from mmq.studies.joint_pruning import JointPruner
from mmq.studies.joint_record import joint_record
from mmq.studies.joint_tasks import JointPrepared
from mmq.studies.pruning import TaskPruner
from mmq.studies.records import Records
from mmq.studies.session import CheckSize, Session
from mmq.studies.study import point_of
from mmq.studies.unquantized_outputs import fetch_outputs
from mmq.system.signals import signals_deferred
from mmq.trial import evaluate_quantized, quantized

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mmq.analysis.fronts import Point
    from mmq.tracking import TrialRun


@dataclass(frozen=True, slots=True)
class JointSession(Session):
    """One joint spec with its model and the store of its quantized blocks.

    A trial's run has a run per task nested under it. The record of each task is saved as soon as
    the task is evaluated; tasks that another study has recorded are not evaluated again.
    """

    @property
    def joint(self) -> JointPrepared:
        """The tasks."""
        return cast(JointPrepared, self.prepared)

    def _evaluated(
        self,
        trial: "TrialRun",
        spec: TrialSpec,
        pruner: TaskPruner | None,
        check_size: CheckSize | None,
    ) -> tuple[TrialRecord, Callable[[], object]]:
        record = self.evaluate(trial, spec, pruner, check_size)
        return record, partial(trial.finish_copy, record)

    def evaluate(
        self,
        trial: "TrialRun",
        spec: TrialSpec,
        pruner: TaskPruner | None = None,
        check_size: CheckSize | None = None,
    ) -> TrialRecord:
        """The joint record of an allocation, for this run; its tasks are logged in runs below.

        InputError for a quantized model whose unquantized scores are not recorded.
        """
        unquantized = None if is_unquantized(spec.allocation) else self.unquantized()
        joint_pruner = pruner if isinstance(pruner, JointPruner) else None
        trial_of_tasks = JointTrial(self, trial, spec, joint_pruner)
        pruned = trial_of_tasks.run(check_size)
        return joint_record(
            spec, trial_of_tasks.records, unquantized, self.joint.pictures, pruned
        ).in_run(trial.run_id)

    def log_single(self, run: "TrialRun", spec: TrialSpec) -> TrialRecord:
        """Evaluate an allocation and log it in a run of its own; the unquantized one is saved."""
        record = self.evaluate(run, spec)
        if is_unquantized(spec.allocation):
            Records.of(spec.eval_spec).put(record)
        run.finish_copy(record)
        return record

    def has_unquantized(self, spec: TrialSpec) -> bool:
        """Whether the trial is of the unquantized model, or its record is there."""
        return is_unquantized(spec.allocation) or self._unquantized() is not None

    def unquantized(self) -> TrialRecord:
        """The record of the unquantized model, which shares refer to; InputError without one."""
        record = self._unquantized()
        if record is None:
            raise InputError("the unquantized model was not evaluated on these tasks")
        self.joint.check_unquantized(point_of(record))
        return record

    def _unquantized(self) -> TrialRecord | None:
        components = list(self.prepared.skeleton.components)
        spec = self.spec(BitAllocation.uniform(components, UNQUANTIZED))
        return Records.of(spec.eval_spec).get(spec.allocation)


class JointTrial:
    """The tasks of one trial, evaluated in turn.

    records: of the tasks that are evaluated or were recorded, by label.
    """

    def __init__(
        self, session: JointSession, run: "TrialRun", spec: TrialSpec, pruner: JointPruner | None
    ) -> None:
        self.session, self.run_of_trial, self.spec, self.pruner = session, run, spec, pruner
        self.records: dict[str, TrialRecord] = {}
        self._rival: Point | None = None

    def run(self, check_size: CheckSize | None) -> Pruned | None:
        """Evaluate what no study has recorded; why the trial was pruned, if it was."""
        tasks = self.session.joint.tasks
        for label, task in tasks.items():
            if (record := Records.of(task.eval_spec).get(self.spec.allocation)) is not None:
                self._copy(label, record)
        missing = [label for label in tasks if label not in self.records]
        if not missing:
            if check_size is not None:
                check_size(None, next(iter(self.records.values())).size)
            return None
        with quantized(
            self.session.model, self.session.artifacts, self.spec.allocation, check_size
        ) as weights:
            if self.pruner is not None:
                self._rival = self.pruner.rival(self.spec.allocation, weights.size)
                missing = self.pruner.order(missing)
            for label in missing:
                if (why := self._decided(weights.size)) is not None:
                    return why
                with self._task_run(label) as run:
                    result = evaluate_quantized(
                        self._task_spec(label),
                        self.session.model,
                        weights,
                        tasks[label].task,
                        self.session.quiet,
                        self._pruner_of(label),
                    )
                    with signals_deferred():
                        record = result.record.in_run(run.run_id)
                        if record.pruned is None:
                            Records.of(tasks[label].eval_spec).put(record)
                        self.records[label] = record
                        run.finish(result)
                if record.pruned is not None:
                    return record.pruned
        return None

    def _task_spec(self, label: str) -> TrialSpec:
        return TrialSpec(self.session.joint.tasks[label].eval_spec, self.spec.allocation)

    def _task_run(self, label: str, **tags: str) -> "AbstractContextManager[TrialRun]":
        return self.run_of_trial.task_run(label, self._task_spec(label), **tags)

    def _copy(self, label: str, record: TrialRecord) -> None:
        """Log what another study recorded."""
        with self._task_run(label, **{"mmq.recorded_by": record.run_id}) as run:
            run.finish_copy(record)
        if is_unquantized(record.allocation):
            fetch_outputs(record.spec.eval_spec, record.run_id)
        self.records[label] = record

    def _decided(self, size: Size) -> Pruned | None:
        """Why the tasks that are evaluated are enough to prune the trial."""
        if self.pruner is None or self._rival is None or not self.records:
            return None
        shares = self.pruner.shares(self.records)
        samples = sum(record.score.n for record in self.records.values())
        return self.pruner.decide(self._rival, size, shares, shares, samples)

    def _pruner_of(self, label: str) -> TaskPruner | None:
        if self.pruner is None:
            return None
        return self.pruner.for_task(label, self.records, self._rival)


def session_of(
    prepared: Prepared, load: Callable[[], LoadedModel], artifacts: Artifacts, quiet: bool
) -> Session:
    """The session of one task or of several."""
    kind = JointSession if isinstance(prepared, JointPrepared) else Session
    return kind(prepared, load, artifacts, quiet)
