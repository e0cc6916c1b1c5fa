"""A local store that was moved or copied: its paths are updated.

MLflow's SQLite store contains absolute paths of artifacts, which its client cannot change. Without
an update, a moved project would create its old folder again and write into it.
"""

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mmq.errors import InputError
from mmq.tracking.mlflow_internals import StorePaths

log = logging.getLogger(__name__)
MARK = "mmq.store"  # tag of an experiment: the path of its database
RUNS = "mlruns"  # MLflow's name for the folder of artifacts
WAIT = 60.0  # seconds to wait for another process that is writing


def update_paths(path: Path) -> None:
    """Rewrite the paths in this database if it, or its artifacts' folder, was moved.

    InputError if that is needed and fails.
    """
    try:
        with closing(sqlite3.connect(path, timeout=WAIT, isolation_level=None)) as database:
            moves = _moves(StorePaths(database), path.resolve())
    except sqlite3.Error:  # not a store yet, or a damaged one, which MLflow reports
        return
    if not moves:
        return
    try:
        with closing(sqlite3.connect(path, timeout=WAIT, isolation_level=None)) as database:
            database.execute("begin immediate")
            store = StorePaths(database)
            moves = _moves(store, path.resolve())  # another process may have updated it
            for old, new in moves.items():
                _rewrite(store, old, new)
            store.set_experiment_tags(MARK, str(path.resolve()))
            database.execute("commit")
    except sqlite3.Error as error:
        raise InputError(
            f"MLflow store {path}: it was moved here from {', '.join(map(str, moves))}, and its "
            f"paths cannot be updated ({error}). Move it back, or make the file writable."
        ) from error
    for old, new in moves.items():
        log.warning("The MLflow store %s was in %s: its artifacts are now in %s.", path, old, new)


def _moves(store: StorePaths, path: Path) -> Mapping[Path, Path]:
    """Old folders, which stored paths start with, and their new places."""
    here, moves = path.parent, dict[Path, Path]()
    marks = [Path(mark) for mark in store.experiment_tags(MARK)]
    for mark in marks:
        if mark.parent.resolve() != here:
            moves[mark.parent] = here
    for experiment, location in store.experiments():
        local = _local(location)
        if local is None or RUNS not in local.parts:
            continue
        split = len(local.parts) - 1 - local.parts[::-1].index(RUNS)
        root, tail = Path(*local.parts[:split]), Path(*local.parts[split:])
        if root in moves or root.resolve() == here:
            continue
        if not root.exists():
            moves[root] = Path.cwd() if (Path.cwd() / tail).is_dir() else here
        elif not marks and _has_runs(store, experiment, here / tail):
            moves[root] = here
    return moves


def _has_runs(store: StorePaths, experiment: int, folder: Path) -> bool:
    """Whether a folder has artifacts of an experiment's runs."""
    return folder.is_dir() and any(
        (folder / run_id).is_dir() for run_id in store.run_ids(experiment)
    )


def _rewrite(store: StorePaths, old: Path, new: Path) -> None:
    """Move stored paths from `old` to `new`.

    A file that exists at its old place only keeps its path, so that it can be read; new runs use
    the new place.
    """
    for table, column in store.columns():
        changes = []
        for rowid, value in store.read(table, column):
            moved = _rebased(value, old, new)
            if value is None or moved is None:
                continue
            for_new_runs = table == "experiments" and RUNS in Path(value).parts
            if for_new_runs or _exists(moved) or not _exists(value):
                changes.append((rowid, moved))
        store.write(table, column, changes)


def _exists(address: str) -> bool:
    local = _local(address)
    return local is not None and local.exists()


def _local(value: str) -> Path | None:
    """The path of a local address; None for another kind."""
    if value.startswith("file:"):
        return Path(unquote(urlsplit(value).path))
    return Path(value) if value.startswith("/") else None


def _rebased(value: str | None, old: Path, new: Path) -> str | None:
    """An address under `new` instead of `old`; None if it is not under `old`."""
    for before, after in ((str(old), str(new)), (old.as_uri(), new.as_uri())):
        if value is not None and (value == before or value.startswith(before + "/")):
            return after + value[len(before) :]
    return None
