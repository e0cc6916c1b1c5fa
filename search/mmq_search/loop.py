"""The search loop: ask, run, tell until enough allocations are evaluated, alone or with others."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optuna.trial import TrialState

from mmq.analysis.fronts import Point, baseline, pareto_front
from mmq.analysis.joint import JointSamples
from mmq.artifacts.store import Store
from mmq.contracts import Launcher, LaunchRequest, Metric, QuantReport
from mmq.errors import InputError, TakenOver, TooLarge
from mmq.evaluation.flips import UnquantizedAnswers
from mmq.export.latency import Confirmed
from mmq.models.size import Size
from mmq.prepare import Prepared
from mmq.record import TrialRecord
from mmq.studies.baseline import check_baseline
from mmq.studies.front import Results, cost_metrics
from mmq.studies.joint_tasks import JointPrepared
from mmq.studies.objectives import agreement_metrics, has_value
from mmq.studies.records import Records
from mmq.studies.run import copy_trial, ends_study
from mmq.studies.session import Session
from mmq.studies.unquantized_outputs import fetch_outputs
from mmq.studies.workers import follow
from mmq.system.hashing import digest
from mmq.system.progress import notify
from mmq.system.retries import StorageError
from mmq.system.worker import is_worker
from mmq.tracking import OPTUNA_TRIAL, StudyRun, best_effort, short_timeouts, unreachable
from mmq_search.deadline import Deadline
from mmq_search.progress_run import ProgressRun
from mmq_search.pruners import pruner_of
from mmq_search.study import PendingTrial, SearchStudy
from mmq_search.target_search import TargetSearch, log_confirmed
from mmq_search.trial_lines import TrialLines

log = logging.getLogger(__name__)
POLL = 1.0  # seconds between two looks at the other processes


@dataclass(slots=True)
class Search:
    """A search of a study, logged to its parent run, up to a number of allocations or a time."""

    study: SearchStudy
    run: StudyRun
    prepared: Prepared
    n_trials: int
    deadline: Deadline
    prune: bool = True
    search: TargetSearch | None = None
    confirmed: Sequence[Confirmed] = ()
    _has_valid_baseline: bool = False  # the unquantized model is evaluated, and scores something

    @property
    def done(self) -> int:
        """How many allocations are completed or pruned, by all processes."""
        return len(self.study.finished())

    def results(self) -> Results:
        """The trials evaluated so far."""
        setup, prepared = self.study.setup, self.prepared
        joint = None
        if isinstance(prepared, JointPrepared):
            task_samples = self.study.task_samples
            joint = JointSamples(prepared.pictures, task_samples, prepared.combine)
        results = self.study.results(
            prepared.clusters, setup.budget, setup.parameters, setup.floor, joint
        )
        return replace(results, subject=prepared.eval_spec.subject)

    def _target(self) -> int:
        """How many allocations to evaluate in all; reports how many are done already."""
        finished = self.study.finished()
        done = len(finished)
        target = min(self.n_trials, done + self.study.setup.count_new(finished))
        if is_worker():
            return target
        if done:
            state = "is complete" if done >= target else "resumes"
            name = self.study.name
            notify(f"Study {name} {state}: {done} of {target} allocations are evaluated.")
        if target < self.n_trials:
            notify(f"The search space has {target} allocations (within the budget) in all.")
        return target

    def together(self, launcher: Launcher, request: LaunchRequest) -> None:
        """Run workers that search, then log the front."""
        target, live = self._target(), ProgressRun(self.run, self.results)
        self.check_baseline()
        # looking for others also releases the trials of killed workers
        with (
            live.finishing(last=lambda: not self.study.others_at_work()),
            self.study.storage.retries.short_after_interrupt(),
        ):
            if self.done < target:
                with TrialLines(self.study, target, bar=False) as lines:
                    follow(
                        launcher,
                        request,
                        lines.update,
                        target,
                        lambda: self.done >= target or self._is_late(),
                        counts=False,  # there is a line per trial
                    )
                self.check_baseline()

    def _is_late(self) -> bool:
        """Whether the time is up and no trial is running."""
        return self.deadline.passed and not self.study.trials(TrialState.RUNNING)

    def alone(self, session: Session) -> None:
        """Ask, run and tell in this process; the front is logged however the loop ends."""
        target, live = self._target(), ProgressRun(self.run, self.results)
        failures, idle = 0, False
        with (
            live.finishing(last=lambda: not is_worker() and not self.study.others_at_work()),
            self.study.storage.retries.short_after_interrupt(),
            TrialLines(self.study, target) as lines,
        ):
            if not self.study.space.has_baseline:
                self.evaluate_baseline(session)
            while self.done < target and not self.deadline.passed:
                first = None if self.check_baseline() else self.study.space.baseline
                if (pending := self.study.ask(target, first)) is None:
                    if idle:  # nothing is left, and no running trial can be re-queued
                        break
                    idle = not self.study.others_at_work()
                    time.sleep(0 if idle else POLL)
                    continue
                idle = False
                try:
                    self.run_one(pending, session)
                except StorageError:  # the database was retried for long enough
                    raise
                except (TakenOver, TooLarge) as error:
                    notify(f"Trial {pending.allocation}: {error}")
                except Exception as error:
                    failures += 1
                    kind = type(error).__name__
                    notify(f"Trial {pending.allocation} failed: {kind}: {error}", important=True)
                    if ends_study(error, failures):
                        raise
                else:
                    failures = 0
                    live.update()
                lines.update()

    def confirm(self) -> None:
        """Time the front's models as a whole in the target's engine, if their times are sums.

        The times are logged with the predicted ones. The search is complete without them.
        """
        costs = self.study.setup.costs
        if self.search is None or costs is None or costs.times is None:
            return
        front = pareto_front(self.study.points())
        predicted = {
            p.allocation: p.cost.ms
            for p in front
            if not p.is_unquantized and p.cost is not None and p.cost.ms is not None
        }
        if not predicted:
            return
        try:
            self.confirmed = self.search.confirm(costs, predicted)
        except InputError as error:
            log.warning("The front's times are predicted and not confirmed: %s", error)
            return
        with best_effort("The confirmed times are not logged"):
            log_confirmed(self.run, self.confirmed)

    def check_baseline(self) -> bool:
        """Whether the unquantized model is evaluated; InputError if it scores nothing."""
        if self._has_valid_baseline:
            return True
        if (point := baseline(self.study.points())) is None:
            return False
        prepared = self.prepared
        try:
            if isinstance(prepared, JointPrepared):
                prepared.check_unquantized(point)
                self._share_unquantized(point)
            else:
                if self.study.objective == "score":
                    score = Metric(point.score, len(prepared.samples), point.low, point.high)
                    check_baseline(score, self.study.score_name, prepared.bounds)
                fetch_outputs(prepared.eval_spec, point.run_id)
                self._check_answers()
        except InputError as error:
            if not is_worker():
                with best_effort("The run's description is not up to date"), short_timeouts():
                    self.run.describe(str(error))
            raise
        self._has_valid_baseline = True
        return True

    def _check_answers(self) -> None:
        """InputError if the answers that trials are to agree with are gone."""
        spec = self.prepared.eval_spec
        if self.study.objective == "flips" and UnquantizedAnswers(spec).get() is None:
            raise InputError(
                "objective: the unquantized model's answers are neither in MMQ_HOME nor in its "
                "run; evaluate it again in a new --study"
            )

    def _share_unquantized(self, point: Point) -> None:
        """Save the record of the unquantized model, which shares refer to, on this machine."""
        shared = Records.of(self.prepared.eval_spec)
        record = self.study.record(point.allocation)
        if record is not None and shared.get(point.allocation) is None:
            shared.put(record)

    def evaluate_baseline(self, session: Session) -> None:
        """Evaluate the unquantized model once per study, if the space does not have it.

        It is not one of Optuna's trials and does not count; the others are compared with it.
        """
        study, allocation = self.study, self.study.space.baseline
        store = Store.open()
        with store.locked(f"baseline-{digest(study.name)}"):  # the other workers wait for it
            if baseline(study.points()) is not None:
                return
            shared = Records.of(self.prepared.eval_spec)

            def save(record: TrialRecord) -> None:
                study.save_baseline(study.records.put(record))

            def save_and_share(record: TrialRecord) -> None:
                study.records.put(record)
                study.save_baseline(shared.put(record))

            if (own := study.records.get(allocation)) is not None:  # killed before it was saved
                study.save_baseline(own)
            elif (cached := shared.get(allocation)) is not None:
                copy_trial(self.run, session.spec(allocation), cached, save)
            else:
                session.record(self.run, allocation, save_and_share)

    def run_one(self, pending: PendingTrial, session: Session) -> None:
        """Run one trial; Optuna learns of its end also if it stops early."""
        study = self.study
        try:
            with study.working(pending):
                self._evaluate(pending, session)
        except TooLarge:
            raise  # Optuna has its state already
        except BaseException as error:
            retry = isinstance(error, KeyboardInterrupt | StorageError) or unreachable(error)
            try:
                study.give_up(pending, retry)
            except StorageError as problem:
                log.warning("The next command releases trial %s: %s", pending.allocation, problem)
            raise

    def _evaluate(self, pending: PendingTrial, session: Session) -> None:
        """Evaluate, record, log and tell; a trial that another study recorded is copied."""
        study, eval_spec = self.study, self.prepared.eval_spec
        shared = Records.of(eval_spec)
        tags = {OPTUNA_TRIAL: str(pending.trial.number)}

        def tell() -> None:
            study.tell(pending)

        def check_size(report: QuantReport | None, size: Size) -> None:
            self._check_size(pending, report, size)

        def metrics() -> Mapping[str, float]:
            cost = study.cost(pending.trial.number, pending.allocation)
            values = {} if cost is None else cost_metrics(cost)
            if study.objective == "score":
                return values
            record = study.records.get_any(pending.allocation)
            return values if record is None else values | agreement_metrics(record)

        def save(record: TrialRecord) -> None:
            study.check_claim(pending)
            study.records.put(record)

        def save_and_share(record: TrialRecord) -> None:
            save(record)
            if record.pruned is None:
                shared.put(record)

        cached = shared.get(pending.allocation)
        usable = cached is not None and has_value(cached, study.objective)
        if cached is not None and usable and study.setup.is_as_planned(cached):
            check_size(None, cached.size)
            spec = session.spec(pending.allocation)
            copy_trial(self.run, spec, cached, save, tell, metrics, **tags)
            return
        pruner = pruner_of(study, self.prepared, pending.allocation) if self.prune else None
        session.record(
            self.run, pending.allocation, save_and_share, tell, pruner, check_size, metrics, **tags
        )

    def _check_size(self, pending: PendingTrial, report: QuantReport | None, size: Size) -> None:
        """TooLarge if the quantized model is larger than planned and than the budget allows.

        report: of its layers; None if they are as planned.
        """
        setup, stored_bpw = self.study.setup, size.stored_bpw
        if pending.allocation == self.study.space.baseline or stored_bpw is None:
            return
        measured, size_text = stored_bpw, f"{stored_bpw:.4f} stored bits per weight"
        if setup.costs is not None and report is not None:
            try:
                measured = setup.costs.measured_gib(pending.allocation, report)
            except InputError as error:
                self.study.reject_too_large(pending, math.inf)
                raise TooLarge(f"not evaluated: {error}") from error
            size_text = f"{measured:.4g} GiB as {setup.costs.name}"
            self.study.save_target_gib(pending, measured)
        elif setup.costs is not None:
            return
        if not (
            setup.is_reference(pending.allocation) or setup.fits(pending.allocation, measured)
        ):
            self.study.reject_too_large(pending, measured)
            raise TooLarge(
                f"not evaluated: it takes {size_text}, more than planned and more than "
                f"{setup.budget.size_text}"
            )
