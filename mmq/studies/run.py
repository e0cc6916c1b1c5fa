"""Run the planned trials of a study, each recorded before anything else happens."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmq.allocation.allocation import BitAllocation, is_unquantized
from mmq.record import TrialRecord, TrialSpec
from mmq.studies.names import check_name as check_name
from mmq.studies.names import safe_name as safe_name
from mmq.studies.records import Records
from mmq.studies.session import Session
from mmq.studies.unquantized_outputs import fetch_outputs
from mmq.system import disk
from mmq.system.progress import has_bars, notify, progress_bar
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
    deferred. on_logged: called at the end. more_metrics: logged with the trial's own.
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

    def __str__(self) -> str:
        return f"{self.label}, {self.allocation}"


def run_planned(
    run: "StudyRun", planned: Sequence[Planned], sessions: Mapping[str, Session]
) -> dict[Planned, TrialRecord]:
    """The records of these trials; trials saved on disk or in MLflow are not evaluated again.

    sessions: by label. A trial that fails is skipped, and retried by the next call; after several
    failures in a row the last one is raised.
    """
    done: dict[Planned, TrialRecord] = {}
    trials, failures = Trials(run, sessions), Failures()
    with progress_bar(planned, desc=run.study, unit="trial") as bar:
        for each in bar:
            bar.set_postfix_str(str(each))
            with failures.counted(each):
                record = trials.recorded(each)
                done[each] = trials.evaluate(each) if record is None else record
                if not has_bars():
                    score = done[each].score.value
                    notify(f"trial {len(done)}/{len(planned)} {each} {score:.4g}")
    return done


class Failures:
    """Reports the trials that fail, and raises the error that ends a study."""

    def __init__(self) -> None:
        self.in_a_row = 0

    @contextmanager
    def counted(self, trial: Planned) -> Iterator[None]:
        """Report a failure of the trial; raise it if it ends the study."""
        try:
            yield
        except Exception as error:
            self.in_a_row += 1
            notify(f"Trial {trial} failed: {type(error).__name__}: {error}", important=True)
            if ends_study(error, self.in_a_row):
                raise
        else:
            self.in_a_row = 0


class Trials:
    """The planned trials of a study: their records on disk and in MLflow, and their evaluation."""

    def __init__(self, run: "StudyRun", sessions: Mapping[str, Session]) -> None:
        self.run, self.sessions = run, sessions
        self._records = {
            label: Records.of(session.prepared.eval_spec) for label, session in sessions.items()
        }
        self._logged = run.finished()

    def refresh(self) -> None:
        """Reload what other processes have logged."""
        self._logged = self.run.finished()

    def _spec(self, trial: Planned) -> TrialSpec:
        return self.sessions[trial.label].spec(trial.allocation)

    def recorded(self, trial: Planned) -> TrialRecord | None:
        """A trial's record from disk or from its MLflow run; None if it must be evaluated.

        A record that another study made is logged in this one.
        """
        spec = self._spec(trial)
        logged_as = self._logged.get((spec.eval_spec.key, str(spec.allocation)))
        record = self._records[trial.label].get(spec.allocation)
        if record is None and logged_as is not None:  # damaged or missing here, but logged
            if (fetched := self.run.record(logged_as)) is not None:
                return self._records[trial.label].put(fetched)
        elif record is not None and logged_as is None:
            copy_trial(self.run, spec, record)
        if record is not None and is_unquantized(record.allocation):
            fetch_outputs(spec.eval_spec, record.run_id)
        return record

    def evaluate(self, trial: Planned, check: Callable[[], None] | None = None) -> TrialRecord:
        """Evaluate and log a trial. check: called before its record is saved; may raise."""

        def save(record: TrialRecord) -> None:
            if check is not None:
                check()
            self._records[trial.label].put(record)

        return self.sessions[trial.label].record(self.run, trial.allocation, save)

    def take_over(self, trial: Planned) -> TrialRecord | None:
        """Like `recorded`, for a trial of a process that is gone; its open runs are ended."""
        spec = self._spec(trial)
        own = self._records[trial.label].get(spec.allocation)
        self.run.end_trial(spec, own)
        self.refresh()
        return self.recorded(trial)
