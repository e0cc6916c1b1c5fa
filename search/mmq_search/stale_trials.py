"""Stale trials, whose process died: the next process that asks releases them."""

import logging
import time
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from mmq.record import TrialRecord
from mmq.system.database import HEARTBEAT
from mmq.system.process import is_gone, is_here
from mmq.tracking import OPTUNA_TRIAL, end_trial_runs, trial_record
from mmq_search.optuna_internals import enqueued_params, stale_trial_numbers

if TYPE_CHECKING:
    from mmq_search.study import SearchStudy

log = logging.getLogger(__name__)
LISTEN = 2 * HEARTBEAT  # seconds in which a living process is heard, whatever the clocks show


class StaleTrials:
    """The running trials of a study that no process works on any more."""

    def __init__(self, study: "SearchStudy") -> None:
        self.study = study
        self._runs: list[tuple[int, TrialRecord | None]] = []  # trial's number, its record
        self._silent: dict[int, float] = {}  # trial's number: since when, by this process's clock
        self._outages = 0

    def release(self) -> None:
        """Complete stale trials from their records, or fail and re-queue them.

        The caller holds the study's lock. Whether a process of this host runs is looked up; for
        one of another host, its heartbeat decides. A trial without an owner was interrupted while
        its process asked for it: asking needs the lock, so that process is gone.
        """
        running = self.study.trials(TrialState.RUNNING)
        silent = self._long_silent(running)
        for trial in running:
            process = trial.user_attrs.get("owner")
            if (
                process is None
                or is_gone(process)
                or (trial.number in silent and not is_here(process))
            ):
                log.warning("Trial %d is stale: its process %s is gone", trial.number, process)
                self.release_one(trial)

    def _long_silent(self, running: list[FrozenTrial]) -> set[int]:
        """Numbers of trials without a heartbeat, for longer than a living process would take.

        The database's own times are not enough: its clock may have been set, and during an outage
        no process could write a heartbeat.
        """
        storage = self.study.storage
        if storage.retries.outages != self._outages:
            self._outages = storage.retries.outages
            self._silent.clear()
        others = [t for t in running if not is_here(t.user_attrs.get("owner", ""))]
        if not others:  # whether a process of this host runs is looked up
            self._silent.clear()
            return set()
        stale = stale_trial_numbers(storage.optuna, self.study.study_id, others)
        now = time.monotonic()
        self._silent = {number: self._silent.get(number, now) for number in stale}
        return {number for number, since in self._silent.items() if now - since >= LISTEN}

    def release_one(self, trial: FrozenTrial) -> None:
        """Complete a stale trial from its record, or fail and re-queue it, under the lock."""
        self._runs.append((trial.number, self._release(trial)))

    def _release(self, trial: FrozenTrial) -> TrialRecord | None:
        params = trial.params or enqueued_params(trial)
        if not self.study.space.contains(params):
            self.study.study.tell(trial.number, state=TrialState.FAIL)
            return None
        allocation, records = self.study.space.allocation(params), self.study.records
        if self.study.parent and records.get_any(allocation) is None:
            logged = trial_record(self.study.parent[1], trial.number)
            if logged is not None:  # another machine evaluated it and died before telling Optuna
                records.put(logged)
        return self.study.release(trial.number, allocation)

    def end_runs(self) -> None:
        """End the MLflow runs of released trials; a store that is unavailable is tried later."""
        parent = self.study.parent if self._runs else None
        while parent and self._runs:
            number, record = self._runs[0]
            if not end_trial_runs(parent[1], {OPTUNA_TRIAL: str(number)}, record):
                return
            self._runs.pop(0)
