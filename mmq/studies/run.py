"""Run the planned trials of a study, each recorded before anything else happens."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from mmq.allocation.allocation import BitAllocation
from mmq.record import TrialRecord, TrialSpec
from mmq.studies.names import check_name as check_name
from mmq.studies.names import safe_name as safe_name
from mmq.studies.records import Records
from mmq.studies.session import Session
from mmq.system import disk
from mmq.system.signals import signals_deferred

if TYPE_CHECKING:
    from mmq.tracking import StudyRun

MAX_FAILURES = 3  # failed trials in a row that end a study


def copy_trial(
    run: "StudyRun",
    spec: TrialSpec,
    record: TrialRecord,
    save: Callable[[TrialRecord], object] | None = None,
    on_logged: Callable[[], None] | None = None,
    more_metrics: Callable[[], Mapping[str, float]] = dict,
    **tags: str,
) -> None:
    """Log a trial that another study evaluated, in a nested run of this one.

    save: called with the record and its nested run's id; from then on SIGINT and SIGTERM are
    deferred. on_logged: called at the end. more_metrics: logged beside the trial's own.
    """
    tags |= {"mmq.recorded_by": record.run_id}
    with ExitStack() as stack:
        with run.trial_run(spec, **tags) as trial:
            stack.enter_context(signals_deferred())
            if save is not None:
                save(record.in_run(trial.run_id))
            trial.log(metrics=more_metrics())
            trial.finish_copy(record)
        if on_logged is not None:
            on_logged()


def ends_study(error: BaseException, failures: int) -> bool:
    """Whether the study ends: several trials failed in a row, or the disk or store fails."""
    from mmq.tracking import refuses

    return failures >= MAX_FAILURES or disk.trouble(error) is not None or refuses(error)


@dataclass(frozen=True, slots=True)
class Planned:
    """A trial that a study will run, with the label of its eval spec in the study."""

    label: str
    allocation: BitAllocation


def run_planned(
    run: "StudyRun", planned: Sequence[Planned], sessions: Mapping[str, Session]
) -> dict[Planned, TrialRecord]:
    """The records of these trials; trials saved on disk or in MLflow are not evaluated again.

    sessions: by label. A trial that fails is skipped, and retried by the next call; after several
    failures in a row the last one is raised.
    """
    records = {label: Records.of(each.prepared.eval_spec) for label, each in sessions.items()}
    done: dict[Planned, TrialRecord] = {}
    logged, failures = run.finished(), 0
    with tqdm(planned, desc=run.study, unit="trial") as bar:
        for each in bar:
            bar.set_postfix_str(f"{each.label}, {each.allocation}")
            spec = sessions[each.label].spec(each.allocation)
            logged_as = logged.get((spec.eval_spec.key, str(spec.allocation)))
            try:
                done[each] = _one(run, spec, sessions[each.label], records[each.label], logged_as)
            except Exception as error:
                failures += 1
                tqdm.write(
                    f"Trial {each.label}, {each.allocation} failed: "
                    f"{type(error).__name__}: {error}"
                )
                if ends_study(error, failures):
                    raise
                continue
            failures = 0
    return done


def _one(
    run: "StudyRun", spec: TrialSpec, session: Session, records: Records, logged_as: str | None
) -> TrialRecord:
    """One trial's record: from disk, from its MLflow run, or evaluated now."""
    record = records.get(spec.allocation)
    if record is None and logged_as is not None:  # damaged or missing here, but logged
        if (fetched := run.record(logged_as)) is not None:
            return records.put(fetched)
    elif record is not None:
        if logged_as is None:
            copy_trial(run, spec, record)
        return record
    return session.record(run, spec.allocation, records.put)
