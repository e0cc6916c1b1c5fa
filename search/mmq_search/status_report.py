"""The report of `mmq status`: progress, workers, and the front so far."""

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna import get_all_study_names
from optuna.trial import FrozenTrial, TrialState

from mmq.analysis.fronts import Point, pareto_front
from mmq.artifacts import unlogged
from mmq.errors import InputError, unknown
from mmq.studies.front_tables import front_text
from mmq.studies.work_tables import PresentWorker, planned_studies, present_workers
from mmq.system.database import GRACE, Database
from mmq.system.home import home
from mmq.system.wording import counted
from mmq.tracking import browse_lines, server_address, short_timeouts, ui_command
from mmq.tracking.database import store_file
from mmq.tracking.mlflow_ui import page_link
from mmq_search.deadline import in_words
from mmq_search.storage import Storage, has_studies
from mmq_search.study_reader import StudyReader

NO_WORKERS = "No process is at work."
RECENT = 10  # trials that the remaining time is estimated from


@dataclass(frozen=True, slots=True)
class StatusReport:
    """A study's progress. state: in one line. points: evaluated so far. links: into MLflow."""

    name: str
    state: str
    workers: Sequence[PresentWorker] = ()
    times: str = ""
    points: Sequence[Point] = ()
    score_name: str = "score"
    headlines: Sequence[str] = ()
    links: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """All of it, for a terminal."""
        lines = [f"Study {self.name}: {self.state}", *filter(None, [self.times])]
        lines.append(at_work(self.workers))
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
            "workers": [worker_json(worker) for worker in self.workers],
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
    planned = planned_studies(database)
    if name in planned:
        return _of_planned(name, planned[name], database)
    has_searches = has_studies(database)
    if name and not (planned or has_searches) and not _is_missing(store_file()):
        return _of_logged(name, [], [])  # an import leaves nothing in the study's database
    storage = None  # a database of planned studies alone has no tables of Optuna
    if not planned or has_searches:
        storage = Storage(home(), reading=True)
    searches = [] if storage is None else get_all_study_names(storage.optuna)
    names = sorted({*searches, *planned})
    if not name and len(names) > 1:
        raise InputError(f"study: there are several; choose from {', '.join(names)}")
    name = name or (names[0] if names else "")
    if name in planned:
        return _of_planned(name, planned[name], database)
    if storage is not None and name in searches:
        return _of_search(StudyReader(name, storage), database)
    return _of_logged(name, names, present_workers(database, name))


def _is_missing(file: Path | None) -> bool:
    """Whether a database is a file that does not exist yet; None: it is on a server."""
    return file is not None and not file.is_file()


def _of_search(study: StudyReader, database: Database) -> StatusReport:
    """The progress of a search, from its database."""
    links = browse_lines(study.name, *study.parent) if study.parent else []
    points = study.points()
    units = trials_by_owner(study)
    workers = [
        replace(worker, unit=units.get(worker.owner, ""))
        for worker in present_workers(database, study.name)
    ]
    return StatusReport(
        study.name,
        progress(study),
        workers,
        times(study, has_workers=bool(workers)),
        points,
        study.score_name,
        study.headlines() if points else [],
        [*links, *filter(None, [unlogged.summary()])],
        counts(study),
    )


def _of_planned(name: str, counts: Mapping[str, int], database: Database) -> StatusReport:
    """The progress of a study with a work list; its front so far if it logs trials."""
    state = (
        f"{counts['done']} of {counts['units']} units done, {counts['claimed']} claimed, "
        f"{counts['failed']} failed"
    )
    report = StatusReport(name, state, present_workers(database, name), counts=counts)
    with suppress(InputError), short_timeouts():  # blocks are not logged, nor is a study at first
        logged = _logged(name)
        return replace(
            report, points=logged.points, score_name=logged.score_name, links=logged.links
        )
    return report


def _of_logged(name: str, others: Sequence[str], workers: Sequence[PresentWorker]) -> StatusReport:
    """The progress of a study that is in MLflow alone: a grid, curves, an import."""
    if not name:
        raise unknown("study", name, others)
    try:
        logged = _logged(name)
    except InputError as error:
        raise unknown("study", name, others) from error
    return StatusReport(
        name,
        f"{counted(logged.count, 'allocation')} evaluated, according to MLflow",
        workers,
        points=logged.points,
        score_name=logged.score_name,
        links=logged.links,
        counts={"evaluated": logged.count},
    )


@dataclass(frozen=True, slots=True)
class _Logged:
    """What MLflow has of a study.

    points: empty if it has several quantizers, whose fronts cannot be compared at a glance.
    """

    count: int
    points: Sequence[Point]
    score_name: str
    links: Sequence[str]


def _logged(name: str) -> _Logged:
    """The trials of a study in MLflow; InputError if it has none."""
    from mmq.tracking.queries import find_trials
    from mmq.tracking.subjects import score_name

    groups, pages = find_trials("", [name])
    trials = [trial for group in groups for trial in group.trials]
    command, server = ui_command(), server_address()
    return _Logged(
        len(trials),
        groups[0].points("score") if len(groups) == 1 else [],
        score_name([trial.metrics for trial in trials]),
        [
            *([f"Browse it: {command}"] if command else []),
            *(f"Run:       {page_link(server, page)}" for page in pages.values()),
        ],
    )


def at_work(workers: Sequence[PresentWorker]) -> str:
    """One line per process at work: where it runs, since when, and on what."""
    lines = []
    for worker in workers:
        label = f"worker {worker.number}" if worker.number else "command"
        since = datetime.fromtimestamp(worker.since).strftime("%Y-%m-%d %H:%M")
        doing = f"; evaluates {worker.unit}" if worker.unit else ""
        silent = time.time() - worker.seen
        silence = f"; no heartbeat for {in_words(silent)}" if silent > GRACE else ""
        lines.append(f"  {label}: {worker.place}, since {since}{doing}{silence}")
    return "\n".join(["At work:", *lines]) if lines else NO_WORKERS


def worker_json(worker: PresentWorker) -> dict[str, Any]:
    """A process at work as plain data. number: 0 for a command; times in ISO 8601, UTC."""
    since, seen = (datetime.fromtimestamp(t, UTC).isoformat(timespec="seconds")
                   for t in (worker.since, worker.seen))  # fmt: skip
    return {
        "number": worker.number,
        "place": worker.place,
        "since": since,
        "last_heartbeat": seen,
        "evaluates": worker.unit or None,
    }


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
        return f"Elapsed: {elapsed}; no trial is running at the moment."
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
