"""Run the trials of a study, each recorded before anything else happens; go on after a kill."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.artifacts import Artifacts
from mmq.models.loading import LoadedModel
from mmq.models.size import Size
from mmq.prepare import Prepared
from mmq.record import TrialRecord, TrialSpec
from mmq.studies.names import check_name as check_name
from mmq.studies.names import safe_name as safe_name
from mmq.studies.pruning import Pruner
from mmq.studies.records import Records
from mmq.system import disk
from mmq.system.signals import signals_deferred
from mmq.trial import run_trial

if TYPE_CHECKING:
    from mmq.tracking import StudyRun

MAX_FAILURES = 3  # failed trials in a row that end a study


def record_trial(
    run: "StudyRun",
    spec: TrialSpec,
    model: LoadedModel,
    artifacts: Artifacts,
    prepared: Prepared,
    keep: Callable[[TrialRecord, str], Mapping[str, Any]],
    tell: Callable[[], None] | None = None,
    pruner: Pruner | None = None,
    quiet: bool = False,
    check_size: Callable[[Size], None] | None = None,
    **tags: str,
) -> Mapping[str, Any]:
    """One trial in a nested run: evaluated, kept on disk, logged, told; what was kept.

    check_size: see `run_trial`. From the end of the evaluation on, SIGINT and SIGTERM wait.
    """
    with ExitStack() as stack:
        with run.trial_run(spec, **tags) as trial:
            record = run_trial(
                spec,
                model,
                artifacts,
                prepared.task,
                quiet,
                pruner,
                check_size,
            )
            stack.enter_context(signals_deferred())
            kept = keep(record, trial.run_id)
            trial.finish(record)
        if tell is not None:
            tell()
    return kept


def copy_trial(
    run: "StudyRun",
    spec: TrialSpec,
    facts: Mapping[str, Any],
    keep: Callable[[str], object] | None = None,
    tell: Callable[[], None] | None = None,
    **tags: str,
) -> None:
    """A trial that another study evaluated, in a nested run of this one: kept, logged, told.

    keep: is given the nested run's id; from then on SIGINT and SIGTERM wait.
    """
    tags |= {"mmq.recorded_by": facts["run_id"]}
    with ExitStack() as stack:
        with run.trial_run(spec, **tags) as trial:
            stack.enter_context(signals_deferred())
            if keep is not None:
                keep(trial.run_id)
            trial.finish_copy(facts)
        if tell is not None:
            tell()


def ends_study(error: BaseException, failures: int) -> bool:
    """Whether to try no further trial: several failed in a row, the disk or the store refuses."""
    from mmq.tracking import refuses

    return failures >= MAX_FAILURES or disk.trouble(error) is not None or refuses(error)


@dataclass(frozen=True, slots=True)
class Planned:
    """A trial that a study will run, with the label of its question in the study."""

    label: str
    allocation: BitAllocation


def run_planned(
    run: "StudyRun",
    model: LoadedModel,
    planned: Sequence[Planned],
    prepared: Mapping[str, Prepared],
    artifacts: Mapping[str, Artifacts],
) -> dict[Planned, Mapping[str, Any]]:
    """The records of these trials, by label; what is on disk already is not evaluated again.

    prepared, artifacts: by label. A trial that fails is passed over, and tried again by the next
    call; after several failures in a row the last one is raised.
    """
    records = {label: Records.of(each.question) for label, each in prepared.items()}
    found: dict[Planned, Mapping[str, Any]] = {}
    logged, failures = run.finished(), 0
    with tqdm(planned, desc=run.study, unit="trial") as bar:
        for each in bar:
            bar.set_postfix_str(f"{each.label}, {each.allocation}")
            question, kept = prepared[each.label].question, records[each.label]
            spec = TrialSpec(question, each.allocation)
            known = logged.get((question.key, str(each.allocation)))
            facts: Mapping[str, Any] | None = kept.get(each.allocation)
            try:
                if facts is None and known is not None:  # damaged or lost here, but logged
                    facts = _fetch(run, known, kept)
                if facts is None:
                    part = prepared[each.label]
                    facts = record_trial(run, spec, model, artifacts[each.label], part, kept.keep)
                elif known is None:
                    copy_trial(run, spec, facts)
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
            found[each] = facts
    return found


def _fetch(run: "StudyRun", run_id: str, kept: Records) -> Mapping[str, Any] | None:
    """The record that a run was logged with, stored here again; None if it cannot be had."""
    facts = run.record(run_id)
    return None if facts is None else kept.put(facts)
