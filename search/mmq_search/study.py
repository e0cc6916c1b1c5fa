"""A study in the database: which allocation is next, and what came of each."""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import Trial, TrialState

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.fronts import Cost
from mmq.errors import TakenOver
from mmq.record import TrialRecord
from mmq.studies.objectives import name_of
from mmq.system.process import owner
from mmq.system.retries import StorageError
from mmq_search.optuna_internals import enqueued_params, trial_id
from mmq_search.record_facts import objectives, outcome, trial_attributes
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.stale_trials import StaleTrials
from mmq_search.storage import Storage, heartbeat
from mmq_search.study_identity import check_identity
from mmq_search.study_reader import BASELINE, MEASURED, REQUEST, RULES, StudyReader

T = TypeVar("T")
log = logging.getLogger(__name__)
TARGET_GIB = "target_gib"  # trial attribute: of the files that a target writes
MAX_DUPLICATES = 3  # duplicates in a row before a random new allocation is enqueued


@dataclass(slots=True)
class PendingTrial:
    """A trial to run."""

    trial: Trial
    allocation: BitAllocation


class SearchStudy(StudyReader):
    """Optuna's study of an eval spec, with the records of its trials beside it.

    A record is written before Optuna gets the result: a trial killed in between is completed. Any
    number of processes may open the study; no two evaluate the same allocation.
    """

    def __init__(
        self,
        name: str,
        identity: dict[str, Any],
        space: Space,
        folder: Path,
        seed: int,
        setup: SamplerSetup | None = None,
        patient: bool = False,
    ) -> None:
        """patient: wait for a database that is unavailable at the start."""
        self.space, self.seed = space, seed
        self.setup = setup or SamplerSetup(space)
        storage, self.stale_trials = Storage(folder, patient=patient), StaleTrials(self)
        self._interrupted_asks: set[int] = set()  # numbers: the database became unavailable
        self._has_score_name = False
        storage.exclusively(name, lambda: self._create(name, storage, identity))
        self.stale_trials.end_runs()

    def _create(self, name: str, storage: Storage, identity: dict[str, Any]) -> None:
        """Create or open the study; the caller has its lock."""
        study = optuna.create_study(
            study_name=name,
            storage=storage.optuna,
            directions=["minimize", "maximize"],
            load_if_exists=True,
        )
        self._open(name, storage, study)
        costs = self.setup.costs
        check_identity(self.study, identity, self.setup)
        if costs is not None and (times := self.study.user_attrs.get("times")) is not None:
            self.setup.costs = costs = costs.with_times(times)  # of the machine that started it
        self.study.set_metric_names(self.setup.metric_names)
        self.setup.measured_sizes |= self.rejected_sizes()
        self.stale_trials.release()
        if self.rules != (rules := self.setup.rules()):
            self.study.set_user_attr(RULES, rules)
        self.enqueue(self.setup.first())

    def reject_too_large(self, pending: PendingTrial, size: float) -> None:
        """Fail a trial that is larger than planned and than the bound; it is not re-queued."""
        self._set_attribute(pending, MEASURED, size)
        self.setup.measured_sizes[str(pending.allocation)] = size
        self.study.tell(pending.trial, state=TrialState.FAIL)

    def save_target_gib(self, pending: PendingTrial, gib: float) -> None:
        """Save the size of the files of a quantized allocation, before it is evaluated."""
        self._set_attribute(pending, TARGET_GIB, gib)

    def _set_attribute(self, pending: PendingTrial, name: str, value: Any) -> None:
        self.storage.optuna.set_trial_user_attr(self._trial_id(pending.trial.number), name, value)

    def cost(self, number: int, allocation: BitAllocation) -> Cost | None:
        """The cost of a trial on the target; None in a search without one."""
        if self.setup.costs is None:
            return None
        trial = self.storage.optuna.get_trial(self._trial_id(number))
        return self.setup.cost(allocation, trial.user_attrs.get(TARGET_GIB))

    def exclusively(self, work: Callable[[], T]) -> T:
        """Do what no other process may do in this study at once; see `Storage.exclusively`."""
        return self.storage.exclusively(self.name, work)

    def release(self, number: int, allocation: BitAllocation) -> TrialRecord | None:
        """Complete a trial from its record, or fail and re-queue it; the caller has the lock."""
        record = self.records.get_any(allocation)
        if record is not None and str(allocation) not in self.finished():
            self._finish(number, record)
            return record
        self.study.tell(number, state=TrialState.FAIL)
        self._enqueue(allocation)
        return None

    def _enqueue(self, allocation: BitAllocation) -> None:
        params = self.space.params(allocation)
        waiting = [enqueued_params(trial) for trial in self.trials(TrialState.WAITING)]
        if params not in waiting and str(allocation) not in self.finished():
            self.study.enqueue_trial(params)

    def enqueue(self, allocations: Sequence[BitAllocation]) -> None:
        """Evaluate these next, in this order, before the sampler proposes again.

        Those that are finished, running or enqueued already are left out.
        """

        def enqueue() -> None:
            running = {t.user_attrs.get("allocation") for t in self.trials(TrialState.RUNNING)}
            for allocation in allocations:
                if str(allocation) not in running:
                    self._enqueue(allocation)

        self.exclusively(enqueue)

    def ask(
        self, limit: int | None = None, first: BitAllocation | None = None
    ) -> PendingTrial | None:
        """The next new allocation; None if there is none left.

        None, too, if `limit` allocations are finished or running, in whichever process. With
        `first` it is that one, or None while another process evaluates it.
        """

        def ask() -> PendingTrial | None:
            self._release_interrupted()
            self.stale_trials.release()
            # in this order: a trial that ends in between counts twice, not never
            started = len(self.trials(TrialState.RUNNING)) + len(self.finished())
            return None if limit is not None and started >= limit else self._ask(first)

        pending = self.exclusively(ask)
        self._interrupted_asks.clear()
        self.stale_trials.end_runs()
        return pending

    def _release_interrupted(self) -> None:
        """Release what this process was asking for when the database became unavailable."""
        for trial in self.trials(TrialState.RUNNING):
            if trial.number in self._interrupted_asks:
                self.stale_trials.release_one(trial)
        self._interrupted_asks.clear()

    def _ask(self, first: BitAllocation | None) -> PendingTrial | None:
        """The next allocation; the caller has the lock.

        Duplicates (enqueued ones, or if nothing is left) get the result of the original. What
        another process evaluates is skipped.
        """
        duplicates = 0
        self.setup.measured_sizes |= self.rejected_sizes()
        running, finished = self.running(), set(self.finished())
        if first is not None:
            if str(first) in running:
                return None
            self._enqueue(first)
        # other random numbers in each session: the same seed would propose the same again
        started = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = self.setup.sampler(self.seed + started, self.points())
        while True:
            trial, allocation = self._suggest()
            if first not in (None, allocation) and str(first) not in finished:
                self.study.tell(trial, state=TrialState.FAIL)  # it was enqueued before the first
                self._enqueue(allocation)
                continue
            new = str(allocation) not in finished and str(allocation) not in running
            if new and self.setup.allows(allocation):
                return PendingTrial(trial, allocation)
            if self._close_duplicate(trial, allocation, running):
                continue
            duplicates += 1
            if duplicates >= MAX_DUPLICATES:
                rng = random.Random(self.seed + trial.number)
                fresh = self.setup.random_new({*finished, *running}, rng)
                if fresh is None:
                    return None
                self._enqueue(fresh)

    def _suggest(self) -> tuple[Trial, BitAllocation]:
        """Optuna's next trial, marked as this process's, and its allocation.

        A trial without an owner is released by the next process: this one died before it wrote it.
        """
        trial = self.study.ask()
        self._interrupted_asks.add(trial.number)
        number = self._ids[trial.number] = trial_id(trial)
        with self.storage.optuna.collecting_params() as params:
            allocation = self.space.suggest(trial)
        attributes = {"owner": owner(), "allocation": str(allocation)}
        self.storage.optuna.write_start(number, params, attributes)
        return trial, allocation

    def _close_duplicate(
        self, trial: Trial, allocation: BitAllocation, others: dict[str, int]
    ) -> bool:
        """End a trial without evaluating it; True if it was enqueued under another budget."""
        original = self.finished().get(str(allocation))
        if original is not None:
            trial.set_user_attr("duplicate_of", original.number)
            self.study.tell(trial, original.values, state=original.state)
            return False
        if str(allocation) in others:
            trial.set_user_attr("duplicate_of", others[str(allocation)])
            self.study.tell(trial, state=TrialState.FAIL)
            return False
        # it exceeds the budget: it was enqueued under another one, or nothing is left that fits
        self.study.tell(trial, state=TrialState.FAIL)
        return bool(enqueued_params(self.study.get_trials(deepcopy=False)[trial.number]))

    @contextmanager
    def working(self, pending: PendingTrial) -> Iterator[None]:
        """Around a trial's work: a heartbeat shows other machines that it is alive."""
        with (
            self.storage.retries.short_after_interrupt(),
            heartbeat(self.storage.optuna, self._trial_id(pending.trial.number)),
        ):
            yield

    def others_at_work(self) -> bool:
        """Whether another living process has a running trial."""

        def look() -> bool:
            self.stale_trials.release()
            return bool(self.trials(TrialState.RUNNING))

        others = self.exclusively(look)
        self.stale_trials.end_runs()
        return others

    def may_have_others(self) -> bool:
        """As `others_at_work`, and True if the database is unavailable."""
        try:
            return self.others_at_work()
        except StorageError as error:
            log.warning("The study's run stays open: %s", error)
            return True

    def check_claim(self, pending: PendingTrial) -> None:
        """TakenOver if another process, which took this one for dead, released the trial."""
        if self._state(pending) != TrialState.RUNNING:
            raise TakenOver(
                f"trial {pending.trial.number} had no heartbeat, and another process released it"
            )

    def _state(self, pending: PendingTrial) -> TrialState:
        return self.storage.optuna.get_state(self._trial_id(pending.trial.number))

    def tell(self, pending: PendingTrial) -> None:
        """Report a recorded trial to Optuna, unless another process has ended it."""
        record = self.records.get_any(pending.allocation)
        assert record is not None, f"{pending.allocation} was not recorded"
        self._finish(pending.trial.number, record)

    def _finish(self, number: int, record: TrialRecord) -> None:
        """Complete or prune a recorded trial; one that has ended is left as it is."""
        cost = self.cost(number, record.allocation)
        state, values = outcome(record, self.axis, self.objective, cost)
        attributes = trial_attributes(record, self.objective, cost)
        self.storage.optuna.write_end(self._trial_id(number), state, values, attributes)
        self._name_score(record)

    def _name_score(self, record: TrialRecord) -> None:
        if not self._has_score_name and "score_name" not in self.study.user_attrs:
            self.study.set_user_attr("score_name", name_of(record, self.objective))
        self._has_score_name = True

    def save_baseline(self, record: TrialRecord) -> None:
        """Save the unquantized model's result in the study, if the space does not have it."""
        self._name_score(record)
        cost = self.setup.cost(record.allocation)
        values = {"values": objectives(record, self.axis, self.objective, cost)}
        self.study.set_user_attr(BASELINE, trial_attributes(record, self.objective, cost) | values)

    def save_parent(self, parent: tuple[str, str]) -> None:
        """Save the tracking store and the id of the parent run that this study is logged to."""
        self.study.set_user_attr("parent", list(parent))

    def save_request(self, n_trials: int, until: float | None) -> None:
        """Save what this command requests, for `mmq status` and for workers."""
        bounds = {
            "budget": asdict(self.setup.budget),
            "parameters": self.setup.parameters,
            "floor": self.setup.floor,
        }
        self.study.set_user_attr(REQUEST, {"n_trials": n_trials, "until": until} | bounds)

    def give_up(self, pending: PendingTrial, retry: bool) -> None:
        """End a trial that stopped early; with `retry` its allocation is re-queued.

        A recorded trial is completed all the same. A trial that is finished already, because the
        interrupt came after its end, is left as it is.
        """
        if self._state(pending).is_finished():
            return
        if retry or self.records.get_any(pending.allocation) is not None:
            self.exclusively(lambda: self._give_up(pending))
        else:
            self.study.tell(pending.trial, state=TrialState.FAIL)

    def _give_up(self, pending: PendingTrial) -> None:
        if self._state(pending) == TrialState.RUNNING:
            self.release(pending.trial.number, pending.allocation)
