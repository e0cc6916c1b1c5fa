"""`mmq status`: how far a search is, without disturbing it."""

import statistics
import time
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
from mmq.system.home import home
from mmq.tracking import places
from mmq_search.deadline import in_words
from mmq_search.storage import Storage
from mmq_search.study_reader import StudyReader

RECENT = 10  # trials whose seconds tell how long the next ones take


@dataclass(frozen=True, slots=True)
class StatusOptions:
    """Which search to look at."""

    study: str = option("", "Name of the study; may be left out where there is only one.")


@click.command("status")
@click.argument("name", required=False, metavar="[STUDY]")
@options_from(StatusOptions)
def status(chosen: StatusOptions, extra: dict[str, str], name: str | None) -> None:
    """Print a search's front, the trials and the time used, and where to look.

    It reads what MMQ_HOME, or MMQ_STORAGE, holds, whichever machines work on it.
    """
    if extra:
        raise unknown("option", next(iter(extra)), ["study"])
    storage = Storage(home(), reading=True)
    known = get_all_study_names(storage.optuna)
    wanted = name or chosen.study or (known[0] if len(known) == 1 else "")
    if not wanted and known:
        raise InputError(f"study: there are several, name one of {', '.join(known)}")
    study = StudyReader(wanted, storage)
    click.echo(f"Study {study.name}: {progress(study)}\n{times(study)}")
    if points := study.points():
        found = "\n".join(study.short_selections())
        click.echo(f"\n{front_text(points, study.score_name)}\n\n{found}")
    click.echo()
    print_where_saved()
    if study.parent:
        click.echo("\n".join(places(study.name, *study.parent)))
    if waiting := unlogged.summary():
        click.echo(f"\n{waiting}")


def _count(study: StudyReader, *states: TrialState) -> int:
    """Trials in these states; those that only repeat another one do not count."""
    return sum("duplicate_of" not in t.user_attrs for t in study.trials(*states))


def progress(study: StudyReader) -> str:
    """Trials by what became of them, against what was asked."""
    asked = study.asked.get("n_trials")
    of = f" of {asked}" if asked else ""
    return (
        f"{len(study.evaluated())}{of} allocations evaluated, "
        f"{_count(study, TrialState.RUNNING)} running, "
        f"{_count(study, TrialState.FAIL)} failed or interrupted, {len(study.pruned())} pruned"
    )


def _seconds(trial: FrozenTrial) -> float:
    duration = trial.duration
    return 0.0 if duration is None else max(0.0, duration.total_seconds())


def times(study: StudyReader) -> str:
    """The time since the first trial, and what the asked ones still take."""
    trials = [t for t in study.study.get_trials(deepcopy=False) if t.datetime_start is not None]
    if not trials:
        return "Nothing was begun yet."
    running = _count(study, TrialState.RUNNING)
    begun = min(t.datetime_start for t in trials if t.datetime_start)
    ends = [t.datetime_complete for t in trials if t.datetime_complete]
    end = datetime.now() if running or not ends else max(ends)
    elapsed = in_words(max(0.0, (end - begun).total_seconds()))  # clocks may be set back
    evaluated = sorted(study.evaluated().values(), key=lambda t: t.number)
    rest = study.asked.get("n_trials", 0) - len(study.settled())
    if rest <= 0:
        return f"Elapsed: {elapsed}; all that was asked is done."
    if not running:
        return f"Elapsed: {elapsed}; nobody works on it: the same command goes on."
    if not evaluated:
        return f"Elapsed: {elapsed}; the first trial runs."
    each = statistics.median(_seconds(t) for t in evaluated[-RECENT:])
    left = each * rest / running
    until = study.asked.get("until")
    if until is not None:
        left = min(left, max(0.0, until - time.time()))
    return f"Elapsed: {elapsed}; about {in_words(left)} left ({running} at once)."
