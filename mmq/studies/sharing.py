"""Planned trials evaluated by several workers, which share them through a work list."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mmq.errors import TakenOver
from mmq.record import TrialRecord
from mmq.studies.run import Failures, Planned, Trials
from mmq.studies.session import Session
from mmq.studies.work_list import Claim, WorkList
from mmq.system.database import Database
from mmq.system.home import home
from mmq.system.progress import notify

if TYPE_CHECKING:
    from mmq.tracking import StudyRun


def work_list(study: str, run_id: str) -> WorkList:
    """The work list of a study: the same for all processes that log to its parent run."""
    return WorkList(Database(home()), f"{study}@{run_id}")


def recorded(
    run: "StudyRun", planned: Sequence[Planned], sessions: Mapping[str, Session]
) -> dict[Planned, TrialRecord]:
    """The records of those trials that have one, on disk or in MLflow. Evaluates nothing."""
    trials = Trials(run, sessions)
    records = {trial: trials.recorded(trial) for trial in planned}
    return {trial: record for trial, record in records.items() if record is not None}


def run_share(
    run: "StudyRun",
    work: WorkList,
    planned: Sequence[Planned],
    sessions: Mapping[str, Session],
) -> None:
    """Evaluate trials that no other worker evaluates, until all of them are done or failed.

    The caller is present in the work list. Several failures in a row raise the last one.
    """
    by_unit = {str(trial): trial for trial in planned}
    trials, failures = Trials(run, sessions), Failures()
    for claim in work.claims(list(by_unit)):
        trial = by_unit[claim.unit]
        with failures.counted(trial):
            try:
                _evaluate(trials, work, claim, trial)
            except TakenOver as error:
                notify(f"Trial {trial}: {error}")
            except Exception:  # not an interrupt, which releases the trial
                work.fail(claim)
                raise


def _evaluate(trials: Trials, work: WorkList, claim: Claim, trial: Planned) -> None:
    """Evaluate a claimed trial, unless it turns out to be recorded."""
    record = trials.take_over(trial) if claim.repeated else trials.recorded(trial)
    if record is None:
        trials.evaluate(trial, lambda: work.check(claim))
    work.complete(claim)
