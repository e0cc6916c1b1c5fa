"""The report of `mmq status`: progress, workers, and the front so far."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna import get_all_study_names
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import inspect

from mmq.analysis.fronts import Point, pareto_front
from mmq.artifacts import unlogged
from mmq.errors import InputError, unknown
from mmq.studies.front_tables import front_text
from mmq.studies.work_tables import planned_studies, present_workers
from mmq.system.database import GRACE, Database
from mmq.system.home import home
from mmq.system.wording import counted
from mmq.tracking import browse_lines, server_address, ui_command
from mmq.tracking.database import store_file
from mmq_search.deadline import in_words
from mmq_search.storage import Storage
from mmq_search.study_reader import StudyReader

NO_WORKERS = "No process is at work."
RECENT = 10  # trials that the remaining time is estimated from


@dataclass(frozen=True, slots=True)
class StatusReport:
    """A study's progress. state: in one line. points: evaluated so far. links: into MLflow."""

    name: str
    state: str
    at_work: str
    times: str = ""
    points: Sequence[Point] = ()
    score_name: str = "score"
    headlines: Sequence[str] = ()
    links: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """All of it, for a terminal."""
        lines = [f"Study {self.name}: {self.state}", *filter(None, [self.times, self.at_work])]
        if self.points:
            lines += ["", front_text(self.points, self.score_name)]
        if self.headlines:
            lines += ["", *self.headlines]
        return "\n".join([*lines, ""])

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "study": self.name,
            "state": self.state,
            "times": self.times,
            "at_work": self.at_work,
            **self.counts,
            "score_name": self.score_name,
            "front": [asdict(point) for point in pareto_front(self.points)],
            "selected": list(self.headlines),
            "links": list(self.links),
        }


def report_on(name: str) -> StatusReport:
    """The progress of a study of any kind; empty: of the only one there is.

    InputError for an unknown name.
    """
    database = Database(home())
    if name and _is_missing(database.file) and not _is_missing(store_file()):
        return _of_logged(name, [], NO_WORKERS)  # an import leaves nothing in the home
    planned = planned_studies(database)
    if name in planned:
        return StatusReport(name, planned[name], at_work(database, name))
    storage = None  # a database of planned studies alone has no tables of Optuna
    if not planned or database.run(lambda connection: inspect(connection).has_table("studies")):
        storage = Storage(home(), reading=True)
    searches = [] if storage is None else get_all_study_names(storage.optuna)
    names = sorted({*searches, *planned})
    if not name and len(names) > 1:
        raise InputError(f"study: there are several; choose from {', '.join(names)}")
    name = name or (names[0] if names else "")
    if name in planned:
        return StatusReport(name, planned[name], at_work(database, name))
    if storage is not None and name in searches:
        return _of_search(StudyReader(name, storage), database)
    return _of_logged(name, names, at_work(database, name))


def _is_missing(file: Path | None) -> bool:
    """Whether a database is a file that does not exist yet; None: it is on a server."""
    return file is not None and not file.is_file()


def _of_search(study: StudyReader, database: Database) -> StatusReport:
    """The progress of a search, from its database."""
    links = browse_lines(study.name, *study.parent) if study.parent else []
    points = study.points()
    workers = at_work(database, study.name, trials_by_owner(study))
    return StatusReport(
        study.name,
        progress(study),
        workers,
        times(study, has_workers=workers != NO_WORKERS),
        points,
        study.score_name,
        study.headlines() if points else [],
        [*links, *filter(None, [unlogged.summary()])],
        counts(study),
    )


def _of_logged(name: str, others: Sequence[str], workers: str) -> StatusReport:
    """The progress of a study that is in MLflow alone: a grid, curves, an import."""
    from mmq.tracking.queries import find_trials
    from mmq.tracking.subjects import score_name

    if not name:
        raise unknown("study", name, others)
    try:
        groups, links = find_trials("", [name])
    except InputError as error:
        raise unknown("study", name, others) from error
    trials = [trial for group in groups for trial in group.trials]
    points = groups[0].points("score") if len(groups) == 1 else []
    command, server = ui_command(), server_address()
    return StatusReport(
        name,
        f"{counted(len(trials), 'allocation')} evaluated, according to MLflow",
        workers,
        points=points,
        score_name=score_name([trial.metrics for trial in trials]),
        links=[
            *([f"Browse it: {command}"] if command else []),
            *(
                f"Run:       {server}/{link}?workflowType=machine_learning"
                for link in links.values()
            ),
        ],
        counts={"evaluated": len(trials)},
    )


def at_work(database: Database, name: str, trials: Mapping[str, str] | None = None) -> str:
    """One line per process at work: where it runs, since when, and on what."""
    lines = []
    for worker in present_workers(database, name):
        label = f"worker {worker.number}" if worker.number else "command"
        since = datetime.fromtimestamp(worker.since).strftime("%Y-%m-%d %H:%M")
        unit = worker.unit or (trials or {}).get(worker.owner, "")
        doing = f"; evaluates {unit}" if unit else ""
        silent = time.time() - worker.seen
        silence = f"; no heartbeat for {in_words(silent)}" if silent > GRACE else ""
        lines.append(f"  {label}: {worker.place}, since {since}{doing}{silence}")
    return "\n".join(["At work:", *lines]) if lines else NO_WORKERS


def trials_by_owner(study: StudyReader) -> dict[str, str]:
    """The allocation that each process evaluates."""
    return {
        str(trial.user_attrs.get("owner")): str(trial.user_attrs.get("allocation"))
        for trial in study.trials(TrialState.RUNNING)
    }


def _count(study: StudyReader, *states: TrialState) -> int:
    """How many trials are in these states, without duplicates."""
    return sum("duplicate_of" not in t.user_attrs for t in study.trials(*states))


def counts(study: StudyReader) -> dict[str, int]:
    """How many trials are requested, evaluated, running, failed and pruned."""
    return {
        "requested": int(study.request.get("n_trials") or 0),
        "evaluated": len(study.evaluated()),
        "running": _count(study, TrialState.RUNNING),
        "failed": _count(study, TrialState.FAIL),
        "pruned": len(study.pruned()),
    }


def progress(study: StudyReader) -> str:
    """The counts in words."""
    numbers = counts(study)
    of = f" of {numbers['requested']}" if numbers["requested"] else ""
    return (
        f"{numbers['evaluated']}{of} allocations evaluated, {numbers['running']} running, "
        f"{numbers['failed']} failed or interrupted, {numbers['pruned']} pruned"
    )


def _seconds(trial: FrozenTrial) -> float:
    duration = trial.duration
    return 0.0 if duration is None else max(0.0, duration.total_seconds())


def times(study: StudyReader, has_workers: bool) -> str:
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
    if not running and has_workers:
        return f"Elapsed: {elapsed}; between two trials."
    if not running:
        return f"Elapsed: {elapsed}; not running. Run the same command to resume."
    if not evaluated:
        return f"Elapsed: {elapsed}; the first trial is running."
    seconds = statistics.median(_seconds(t) for t in evaluated[-RECENT:])
    seconds_left = seconds * rest / running
    until = study.request.get("until")
    if until is not None:
        seconds_left = min(seconds_left, max(0.0, until - time.time()))
    return f"Elapsed: {elapsed}; about {in_words(seconds_left)} left ({running} running)."
