"""`mmq status`: the progress of a search, read without disturbing it."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import click
from optuna import get_all_study_names
from optuna.trial import FrozenTrial, TrialState

from mmq.artifacts import unlogged
from mmq.cli.options import options_from
from mmq.cli.places import print_where_saved
from mmq.config import option
from mmq.errors import InputError, unknown
from mmq.studies.front import front_text
from mmq.studies.work_tables import planned_studies, present_workers
from mmq.system.database import GRACE, Database
from mmq.system.home import home
from mmq.tracking import browse_lines
from mmq_search.deadline import in_words
from mmq_search.storage import Storage
from mmq_search.study_reader import StudyReader

RECENT = 10  # trials that the remaining time is estimated from


@dataclass(frozen=True, slots=True)
class StatusOptions:
    """Which search to show."""

    study: str = option("", "Name of the study to show; empty: the only one there is.")


@click.command("status")
@click.argument("name", required=False, metavar="[STUDY]")
@options_from(StatusOptions)
def status(options: StatusOptions, plugin_options: dict[str, str], name: str | None) -> None:
    """Print a study's front, its trials, its workers, the time used and left, and where to look.

    A planned study that workers share shows its units and its workers instead. Reads the database
    in MMQ_HOME, or at MMQ_STORAGE, whichever machines are at work.
    """
    if plugin_options:
        raise unknown("option", next(iter(plugin_options)), ["study"])
    database = Database(home())
    planned, wanted = planned_studies(database), name or options.study
    if wanted in planned:
        click.echo(f"Study {wanted}: {planned[wanted]}\n{at_work(database, wanted)}")
        return
    storage = Storage(home(), reading=True)
    names = sorted({*get_all_study_names(storage.optuna), *planned})
    wanted = wanted or (names[0] if len(names) == 1 else "")
    if not wanted and names:
        raise InputError(f"study: there are several; choose from {', '.join(names)}")
    study = StudyReader(wanted, storage)
    click.echo(f"Study {study.name}: {progress(study)}\n{times(study)}")
    click.echo(at_work(database, study.name, trials_by_owner(study)))
    if points := study.points():
        headlines = "\n".join(study.headlines())
        click.echo(f"\n{front_text(points, study.score_name)}\n\n{headlines}")
    click.echo()
    print_where_saved()
    if study.parent:
        click.echo("\n".join(browse_lines(study.name, *study.parent)))
    if waiting := unlogged.summary():
        click.echo(f"\n{waiting}")


def at_work(database: Database, name: str, trials: Mapping[str, str] | None = None) -> str:
    """One line per process at work: where it runs, since when, and on what."""
    lines = []
    for each in present_workers(database, name):
        label = f"worker {each.number}" if each.number else "command"
        since = datetime.fromtimestamp(each.since).strftime("%Y-%m-%d %H:%M")
        unit = each.unit or (trials or {}).get(each.owner, "")
        doing = f"; evaluates {unit}" if unit else ""
        silent = time.time() - each.seen
        heard = f"; not heard for {in_words(silent)}" if silent > GRACE else ""
        lines.append(f"  {label}: {each.place}, since {since}{doing}{heard}")
    return "\n".join(["At work:", *lines]) if lines else "Nobody is at work."


def trials_by_owner(study: StudyReader) -> dict[str, str]:
    """The allocation that each process evaluates."""
    return {
        str(trial.user_attrs.get("owner")): str(trial.user_attrs.get("allocation"))
        for trial in study.trials(TrialState.RUNNING)
    }


def _count(study: StudyReader, *states: TrialState) -> int:
    """How many trials are in these states, without duplicates."""
    return sum("duplicate_of" not in t.user_attrs for t in study.trials(*states))


def progress(study: StudyReader) -> str:
    """How many trials are evaluated, running, failed and pruned."""
    requested = study.request.get("n_trials")
    of = f" of {requested}" if requested else ""
    return (
        f"{len(study.evaluated())}{of} allocations evaluated, "
        f"{_count(study, TrialState.RUNNING)} running, "
        f"{_count(study, TrialState.FAIL)} failed or interrupted, {len(study.pruned())} pruned"
    )


def _seconds(trial: FrozenTrial) -> float:
    duration = trial.duration
    return 0.0 if duration is None else max(0.0, duration.total_seconds())


def times(study: StudyReader) -> str:
    """The time since the first trial, and an estimate for the remaining ones."""
    trials = [t for t in study.study.get_trials(deepcopy=False) if t.datetime_start is not None]
    if not trials:
        return "No trial has started yet."
    running = _count(study, TrialState.RUNNING)
    start = min(t.datetime_start for t in trials if t.datetime_start)
    ends = [t.datetime_complete for t in trials if t.datetime_complete]
    end = datetime.now() if running or not ends else max(ends)
    elapsed = in_words(max(0.0, (end - start).total_seconds()))  # clocks may be set back
    evaluated = sorted(study.evaluated().values(), key=lambda t: t.number)
    rest = study.request.get("n_trials", 0) - len(study.finished())
    if rest <= 0:
        return f"Elapsed: {elapsed}; the search is complete."
    if not running:
        return f"Elapsed: {elapsed}; not running. Run the same command to resume."
    if not evaluated:
        return f"Elapsed: {elapsed}; the first trial is running."
    seconds = statistics.median(_seconds(t) for t in evaluated[-RECENT:])
    left = seconds * rest / running
    until = study.request.get("until")
    if until is not None:
        left = min(left, max(0.0, until - time.time()))
    return f"Elapsed: {elapsed}; about {in_words(left)} left ({running} running)."
