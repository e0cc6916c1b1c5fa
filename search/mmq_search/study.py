"""A study on disk: trials asked, told, and never lost."""

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
from mmq.errors import TakenOver
from mmq.record import TrialRecord
from mmq.system.process import owner
from mmq_search.eval_spec_check import check_eval_spec
from mmq_search.patience import StorageError
from mmq_search.record_facts import SIZE_NAMES, objectives, trial_attributes
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.stale_trials import StaleTrials
from mmq_search.storage import Storage, heartbeat
from mmq_search.study_reader import BASELINE, StudyReader

T = TypeVar("T")
log = logging.getLogger(__name__)
MAX_DUPLICATES = 3  # repeats in a row before a fresh allocation is drawn


@dataclass(slots=True)
class Asked:
    """A trial to run."""

    trial: Trial
    allocation: BitAllocation


class SearchStudy(StudyReader):
    """Optuna's study of an eval spec, with the records of its trials beside it.

    A record is written before Optuna is told: a trial that was killed in between is completed from
    its record by whoever asks next. Any number of processes may have the study open: they ask one
    after the other, so that none evaluates what another one does.
    """

    def __init__(
        self,
        name: str,
        identity: dict[str, Any],
        space: Space,
        folder: Path,
        seed: int,
        steering: SamplerSetup | None = None,
        patient: bool = False,
    ) -> None:
        """patient: wait for a database that is away already at the start."""
        self.space, self.seed = space, seed
        self.steering = steering or SamplerSetup(space)
        storage, self.abandoned = Storage(folder, patient=patient), StaleTrials(self)
        self._half_asked: set[int] = set()  # numbers: the database went away meanwhile
        storage.exclusively(name, lambda: self._make(name, storage, identity))
        self.abandoned.end_runs()

    def _make(self, name: str, storage: Storage, identity: dict[str, Any]) -> None:
        """Make the study, or open it, with its lock held."""
        study = optuna.create_study(
            study_name=name,
            storage=storage.optuna,
            directions=["minimize", "maximize"],
            load_if_exists=True,
        )
        self._open(name, storage, study)
        check_eval_spec(self.study, identity, self.space, self.steering.axis)
        self.study.set_metric_names([SIZE_NAMES[self.steering.axis], "score"])
        self.steering.weighed |= self._weighed()
        self.abandoned.settle()
        self.lead(self.steering.diagonal())

    def _weighed(self) -> dict[str, float]:
        """Stored sizes of allocations that were larger than planned, and than was allowed."""
        return {
            trial.user_attrs["allocation"]: trial.user_attrs["stored_bpw"]
            for trial in self.trials(TrialState.FAIL)
            if "stored_bpw" in trial.user_attrs
        }

    def exceeds(self, asked: Asked, stored_bpw: float) -> None:
        """Settle a trial that is larger than planned, and too large: it is not asked again."""
        storage = self.study._storage
        storage.set_trial_user_attr(asked.trial._trial_id, "stored_bpw", stored_bpw)
        self.steering.weighed[str(asked.allocation)] = stored_bpw
        self.study.tell(asked.trial, state=TrialState.FAIL)

    def exclusively(self, work: Callable[[], T]) -> T:
        """Do what no other process may do in this study meanwhile; see `Storage.exclusively`."""
        return self.storage.exclusively(self.name, work)

    def _settle(self, number: int, allocation: BitAllocation) -> TrialRecord | None:
        """End a trial as its record says; without one, fail it and ask again."""
        record = self.records.get_any(allocation)
        if record is not None and str(allocation) not in self.settled():
            self._close(number, record)
            return record
        self.study.tell(number, state=TrialState.FAIL)
        self._enqueue(allocation)
        return None

    def _enqueue(self, allocation: BitAllocation) -> None:
        params = self.space.params(allocation)
        waiting = [t.system_attrs.get("fixed_params") for t in self.trials(TrialState.WAITING)]
        if params not in waiting and str(allocation) not in self.settled():
            self.study.enqueue_trial(params)

    def lead(self, allocations: Sequence[BitAllocation]) -> None:
        """Ask for these next, in this order, before the sampler chooses again.

        Those that were evaluated, are being evaluated or are waiting already are left out.
        """

        def lead() -> None:
            running = {t.user_attrs.get("allocation") for t in self.trials(TrialState.RUNNING)}
            for allocation in allocations:
                if str(allocation) not in running:
                    self._enqueue(allocation)

        self.exclusively(lead)

    def ask(self, limit: int | None = None, first: BitAllocation | None = None) -> Asked | None:
        """The next allocation that was not tried yet; None where there is none left.

        None, too, where `limit` allocations are settled or running, by whichever process. With
        `first` it is that one, or None while another process evaluates it.
        """

        def ask() -> Asked | None:
            self._give_back()
            self.abandoned.settle()
            # in this order: a trial that ends in between counts twice, not never
            begun = len(self.trials(TrialState.RUNNING)) + len(self.settled())
            return None if limit is not None and begun >= limit else self._ask(first)

        asked = self.exclusively(ask)
        self._half_asked.clear()
        self.abandoned.end_runs()
        return asked

    def _give_back(self) -> None:
        """Settle what this process was about to ask when the database went away."""
        for trial in self.trials(TrialState.RUNNING):
            if trial.number in self._half_asked:
                self.abandoned.settle_one(trial)
        self._half_asked.clear()

    def _running(self) -> set[str]:
        """Allocations that are being evaluated."""
        return {str(t.user_attrs.get("allocation")) for t in self.trials(TrialState.RUNNING)}

    def _ask(self, first: BitAllocation | None) -> Asked | None:
        """The next allocation, with the lock held.

        Repeats (of what was enqueued, or where nothing is left) are answered from what was found.
        What another process is evaluating is passed over.
        """
        repeats = 0
        self.steering.weighed |= self._weighed()
        if first is not None:
            if str(first) in self._running():
                return None
            self._enqueue(first)
        # random numbers of its own a session: the same seed would propose the same again
        begun = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = self.steering.sampler(self.seed + begun, self.points())
        while True:
            trial = self.study.ask()
            self._half_asked.add(trial.number)
            self.storage.optuna.record_heartbeat(trial._trial_id)
            trial.set_user_attr("owner", owner())
            with self.storage.optuna.parameters_at_once():
                allocation = self.space.suggest(trial)
            others = {
                str(t.user_attrs.get("allocation")): t.number
                for t in self.trials(TrialState.RUNNING)
                if t.number != trial.number
            }
            trial.set_user_attr("allocation", str(allocation))
            if first not in (None, allocation) and str(first) not in self.settled():
                self.study.tell(trial, state=TrialState.FAIL)  # it was enqueued before the first
                self._enqueue(allocation)
                continue
            known = self.settled()
            new = str(allocation) not in known and str(allocation) not in others
            if new and self.steering.allows(allocation):
                return Asked(trial, allocation)
            if str(allocation) in known:
                twin = known[str(allocation)]
                trial.set_user_attr("duplicate_of", twin.number)
                self.study.tell(trial, twin.values, state=twin.state)
            elif new:  # it was enqueued under another budget, or nothing is left that fits
                self.study.tell(trial, state=TrialState.FAIL)
                if "fixed_params" in self.storage.optuna.get_trial(trial._trial_id).system_attrs:
                    continue
            else:
                trial.set_user_attr("duplicate_of", others[str(allocation)])
                self.study.tell(trial, state=TrialState.FAIL)
            repeats += 1
            if repeats >= MAX_DUPLICATES:
                seen = {*known, *others}
                fresh = self.steering.unseen(seen, random.Random(self.seed + trial.number))
                if fresh is None:
                    return None
                self._enqueue(fresh)

    @contextmanager
    def working(self, asked: Asked) -> Iterator[None]:
        """Around a trial's work: other machines see that it is alive."""
        with (
            self.storage.door.hurrying(),
            heartbeat(self.storage.optuna, asked.trial._trial_id),
        ):
            yield

    def others_at_work(self) -> bool:
        """Whether a living process has a trial running."""

        def look() -> bool:
            self.abandoned.settle()
            return bool(self.trials(TrialState.RUNNING))

        others = self.exclusively(look)
        self.abandoned.end_runs()
        return others

    def may_have_company(self) -> bool:
        """As `others_at_work`, and True where the database does not say."""
        try:
            return self.others_at_work()
        except StorageError as error:
            log.warning("The study's run stays open: %s", error)
            return True

    def check_claim(self, asked: Asked) -> None:
        """TakenOver where the trial was given to others, who took this process for dead."""
        if self._state(asked) != TrialState.RUNNING:
            raise TakenOver(f"trial {asked.trial.number} was silent and is settled by others")

    def _state(self, asked: Asked) -> TrialState:
        return self.study._storage.get_trial(asked.trial._trial_id).state

    def tell(self, asked: Asked) -> None:
        """Tell Optuna what the kept record says: completed, or pruned where it was stopped."""
        record = self.records.get_any(asked.allocation)
        assert record is not None, f"{asked.allocation} was never kept"
        if self._state(asked) == TrialState.RUNNING:
            self._close(asked.trial.number, record)

    def _close(self, number: int, record: TrialRecord) -> None:
        storage = self.study._storage  # a Trial of another process can be written in no other way
        trial_id = storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        for name, value in trial_attributes(record).items():
            storage.set_trial_user_attr(trial_id, name, value)
        self._name_score(record)
        if record.pruned is not None:
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self.study.tell(number, objectives(record, self.axis))

    def _name_score(self, record: TrialRecord) -> None:
        if "score_name" not in self.study.user_attrs:
            self.study.set_user_attr("score_name", record.primary)

    def tell_aside(self, record: TrialRecord) -> None:
        """Keep what the unquantized model scores where the space does not have it."""
        self._name_score(record)
        values = {"values": objectives(record, self.axis)}
        self.study.set_user_attr(BASELINE, trial_attributes(record) | values)

    def log_to(self, parent: tuple[str, str]) -> None:
        """Keep tracking store and id of the parent run that this study is logged to."""
        self.study.set_user_attr("parent", list(parent))

    def remember(self, n_trials: int, until: float | None) -> None:
        """Keep what a command asks for."""
        steering = self.steering
        bounds = {
            "budget": asdict(steering.budget),
            "parameters": steering.parameters,
            "floor": steering.floor,
        }
        self.study.set_user_attr("asked", {"n_trials": n_trials, "until": until} | bounds)

    def give_up(self, asked: Asked, retry: bool) -> None:
        """Settle a trial that ended early; with `retry` its allocation is asked again.

        A trial whose record was kept is complete all the same. Nothing happens where Optuna was
        told already: the interrupt came after the end.
        """
        if self._state(asked).is_finished():
            return
        if retry or self.records.get_any(asked.allocation) is not None:
            self.exclusively(lambda: self._give_up(asked))
        else:
            self.study.tell(asked.trial, state=TrialState.FAIL)

    def _give_up(self, asked: Asked) -> None:
        if self._state(asked) == TrialState.RUNNING:
            self._settle(asked.trial.number, asked.allocation)
