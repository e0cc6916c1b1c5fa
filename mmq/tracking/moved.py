"""A local store that was moved or copied: the paths in it follow.

MLflow's SQLite store holds absolute paths of artifacts, and no call of its client changes them.
Left alone, a moved project would write into the folder that it came from, and make it anew.
"""

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mmq.errors import InputError

log = logging.getLogger(__name__)
MARK = "mmq.store"  # tag of an experiment with the path of the database that it is in
RUNS = "mlruns"  # MLflow's name for the folder of artifacts
WAIT = 60.0  # seconds for another process that writes
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


def follow_move(path: Path) -> None:
    """Rewrite the recorded paths where this database, or its artifacts' folder, has moved.

    InputError where that is needed and cannot be done.
    """
    try:
        with closing(sqlite3.connect(path, timeout=WAIT, isolation_level=None)) as database:
            moves = _moves(database, path.resolve())
    except sqlite3.Error:  # not a store yet, or a damaged one: MLflow says what is wrong
        return
    if not moves:
        return
    try:
        with closing(sqlite3.connect(path, timeout=WAIT, isolation_level=None)) as database:
            database.execute("begin immediate")
            moves = _moves(database, path.resolve())  # another process may have done it
            for old, new in moves.items():
                _rewrite(database, old, new)
            database.execute(
                "update experiment_tags set value = ? where key = ?", (str(path.resolve()), MARK)
            )
            database.execute("commit")
    except sqlite3.Error as error:
        raise InputError(
            f"MLflow store {path}: it was moved here from {', '.join(map(str, moves))}, and its "
            f"paths cannot be rewritten ({error}). Move it back, or make the file writable."
        ) from error
    for old, new in moves.items():
        log.warning("The MLflow store %s was in %s: its artifacts are in %s now.", path, old, new)


def _moves(database: sqlite3.Connection, path: Path) -> Mapping[Path, Path]:
    """Folders that recorded paths begin with, and what they should begin with."""
    here, moves = path.parent, dict[Path, Path]()
    query = "select distinct value from experiment_tags where key = ?"
    marks = [Path(mark) for (mark,) in database.execute(query, (MARK,))]
    for mark in marks:
        if mark.parent.resolve() != here:
            moves[mark.parent] = here
    for number, location in database.execute(
        "select experiment_id, artifact_location from experiments"
    ).fetchall():
        local = _local(location or "")
        if local is None or RUNS not in local.parts:
            continue
        split = len(local.parts) - 1 - local.parts[::-1].index(RUNS)
        root, tail = Path(*local.parts[:split]), Path(*local.parts[split:])
        if root in moves or root.resolve() == here:
            continue
        if not root.exists():
            moves[root] = Path.cwd() if (Path.cwd() / tail).is_dir() else here
        elif not marks and _has_runs(database, number, here / tail):
            moves[root] = here
    return moves


def _has_runs(database: sqlite3.Connection, experiment: int, folder: Path) -> bool:
    """Whether a folder has artifacts of an experiment's runs."""
    query = "select run_uuid from runs where experiment_id = ?"
    return folder.is_dir() and any(
        (folder / run_id).is_dir() for (run_id,) in database.execute(query, (experiment,))
    )


def _rewrite(database: sqlite3.Connection, old: Path, new: Path) -> None:
    """Let recorded paths under `old` be under `new`.

    What is at its old place only keeps its path, and can be read; new runs go to the new one.
    """
    known = "select 1 from pragma_table_info(?) where name = ?"
    for table, column in COLUMNS:
        if database.execute(known, (table, column)).fetchone() is None:
            continue  # another MLflow has no such paths
        changes = []
        for rowid, value in database.execute(f"select rowid, {column} from {table}").fetchall():
            there = _rebased(value, old, new)
            if there is None:
                continue
            for_new_runs = table == "experiments" and RUNS in Path(value).parts
            if for_new_runs or _is_there(there) or not _is_there(value):
                changes.append((there, rowid))
        database.executemany(f"update {table} set {column} = ? where rowid = ?", changes)


def _is_there(address: str) -> bool:
    local = _local(address)
    return local is not None and local.exists()


def _local(value: str) -> Path | None:
    """The path of a local address; None for another kind."""
    if value.startswith("file:"):
        return Path(unquote(urlsplit(value).path))
    return Path(value) if value.startswith("/") else None


def _rebased(value: str | None, old: Path, new: Path) -> str | None:
    """An address under `new` instead of `old`; None where it is not under `old`."""
    for before, after in ((str(old), str(new)), (old.as_uri(), new.as_uri())):
        if value is not None and (value == before or value.startswith(before + "/")):
            return after + value[len(before) :]
    return None
