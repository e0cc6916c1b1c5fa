"""Trials whose process died: settled by whoever asks next, with their MLflow runs."""

import logging
import time
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from mmq.record import TrialRecord
from mmq.system.process import is_gone, is_here
from mmq.tracking import settle_trial, trial_record
from mmq_search.storage import HEARTBEAT

if TYPE_CHECKING:
    from mmq_search.study import SearchStudy

log = logging.getLogger(__name__)
LISTEN = 2 * HEARTBEAT  # seconds in which a living process is heard, whatever the clocks say


class StaleTrials:
    """The trials of a study that nobody works on any more."""

    def __init__(self, study: "SearchStudy") -> None:
        self.study = study
        self._runs: list[tuple[int, TrialRecord | None]] = []  # trial's number, its record
        self._silent: dict[int, float] = {}  # trial's id: since when, by this process's clock
        self._outages = 0

    def settle(self) -> None:
        """Complete them by their records, or fail them and ask again. The caller has the lock.

        A process of this host is looked for; of another host, its heartbeat. A trial without an
        owner was left in the middle of asking: who asks holds the lock, and so does the caller.
        """
        silent = self._long_silent()
        for trial in self.study.trials(TrialState.RUNNING):
            who = trial.user_attrs.get("owner")
            if who is None or is_gone(who) or (trial._trial_id in silent and not is_here(who)):
                log.warning("Trial %d was left by %s", trial.number, who)
                self.settle_one(trial)

    def _long_silent(self) -> set[int]:
        """Ids of trials without a heartbeat, here too for longer than a living one would take.

        What the database says alone is not enough: its clock may have been set, and while it was
        away nobody's heart could be heard.
        """
        door = self.study.storage.door
        if door.outages != self._outages:
            self._outages = door.outages
            self._silent.clear()
        stale = self.study.storage.optuna._get_stale_trial_ids(self.study.study._study_id)
        now = time.monotonic()
        self._silent = {trial_id: self._silent.get(trial_id, now) for trial_id in stale}
        return {k for k, since in self._silent.items() if now - since >= LISTEN}

    def settle_one(self, trial: FrozenTrial) -> None:
        """Complete or fail a trial that nobody works on. The caller has the lock."""
        self._runs.append((trial.number, self._settle(trial)))

    def _settle(self, trial: FrozenTrial) -> TrialRecord | None:
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        if not self.study.space.holds(params):
            self.study.study.tell(trial.number, state=TrialState.FAIL)
            return None
        allocation, records = self.study.space.allocation(params), self.study.records
        if self.study.parent and records.get_any(allocation) is None:
            logged = trial_record(self.study.parent[1], trial.number)
            if logged is not None:  # by another machine, which died before it could tell
                records.put(logged)
        return self.study._settle(trial.number, allocation)

    def end_runs(self) -> None:
        """End their MLflow runs; what cannot be reached now is tried the next time."""
        parent = self.study.parent
        while parent and self._runs:
            number, record = self._runs[0]
            if not settle_trial(parent[1], number, record):
                return
            self._runs.pop(0)
