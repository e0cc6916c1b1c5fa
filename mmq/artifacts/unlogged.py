"""Files of runs that wait to be logged, and of runs that cannot be logged.

unlogged/RUN@OWNER    complete and sealed, waiting for MLflow
unlogged/*.part       being written
unlogged/stuck/RUN    MLflow refuses the run, or its files are damaged: see RUN.reason.txt
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mmq.system import checksums
from mmq.system.atomic import ABANDONED, has_writer, sync
from mmq.system.disk import naming
from mmq.system.home import home
from mmq.system.process import is_gone, owner

log = logging.getLogger(__name__)
REASON = "reason.txt"
PART = ".part"
STUCK = "stuck"


def root() -> Path:
    """The folder of runs that are not logged yet."""
    return home() / "unlogged"


def staged(run_id: str) -> Path:
    """The folder of a run's files, owned by this process, until they are logged."""
    return root() / f"{run_id}@{owner()}"


@contextmanager
def staging(run_id: str) -> Iterator[Path]:
    """Yield a folder for a run's files; it is sealed and staged when the block succeeds."""
    root().mkdir(parents=True, exist_ok=True)
    _sweep()
    temporary = root() / f"{os.getpid()}-{run_id}{PART}"
    _discard(temporary)
    try:
        with naming(temporary):
            temporary.mkdir()
            yield temporary
            checksums.seal_folder(temporary, run_id)
            _discard(staged(run_id))
            temporary.rename(staged(run_id))
            sync(root())
    finally:
        _discard(temporary)


def _sweep() -> None:
    """Remove incomplete folders of killed processes, an hour after the last write."""
    for folder in root().glob(f"*{PART}"):
        with suppress(OSError):  # another process was faster
            if time.time() - folder.lstat().st_mtime > ABANDONED and not has_writer(folder.name):
                _discard(folder)


def is_staged(run_id: str) -> bool:
    """Whether a run has files, of any process, that are not logged yet."""
    return any(root().glob(f"{run_id}@*"))


def unstage(run_id: str) -> None:
    """Remove a run's files, which are logged now."""
    _discard(staged(run_id))


def claim_staged() -> Iterator[tuple[str, Path]]:
    """Runs and their staged files, after claiming those of dead processes."""
    for path in sorted(root().glob("*@*")):
        run_id, _, process = path.name.partition("@")
        if process != owner():
            if not is_gone(process):
                continue
            try:
                path.rename(staged(run_id))
            except OSError as error:  # another process was faster, or this one already has it
                log.debug("%s was not claimed: %s", path, error)
                continue
        yield run_id, staged(run_id)


@dataclass(frozen=True, slots=True)
class Stuck:
    """A run that cannot be logged, with its files."""

    run_id: str
    path: Path
    reason: str


def set_aside(run_id: str, reason: str) -> None:
    """Move a run's files to the stuck ones, with a warning, so that they do not block others."""
    path, place = staged(run_id), root() / STUCK / run_id
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() or place.is_symlink():  # left by an earlier attempt
        place = place.with_name(f"{run_id}.{time.time_ns()}")
    with suppress(FileNotFoundError):  # another process has set it aside
        path.rename(place)
        place.with_name(f"{place.name}.{REASON}").write_text(reason)
        log.warning(
            "The run %s cannot be logged and was moved to %s: %s. List, retry or remove such runs "
            "with `mmq store stuck`.",
            run_id, place, reason,
        )  # fmt: skip


def stuck() -> list[Stuck]:
    """All runs that cannot be logged."""
    runs = []
    for path in sorted((root() / STUCK).glob("*")):
        if path.name.endswith(f".{REASON}"):
            continue
        reason = path.with_name(f"{path.name}.{REASON}")
        text = "unknown reason"
        with suppress(OSError, ValueError):
            text = reason.read_text()
        runs.append(Stuck(path.name.partition(".")[0], path, text))
    return runs


def waiting() -> list[tuple[str, Path]]:
    """Runs and their files, of any process, that wait to be logged."""
    return [(path.name.partition("@")[0], path) for path in sorted(root().glob("*@*"))]


def retry(run: Stuck) -> None:
    """Stage a run's files again, so that the next command logs them."""
    _discard(run.path.with_name(f"{run.path.name}.{REASON}"))
    run.path.rename(staged(run.run_id))


def remove(run: Stuck) -> None:
    """Remove a run's files permanently."""
    _discard(run.path.with_name(f"{run.path.name}.{REASON}"))
    _discard(run.path)


def summary() -> str:
    """One line about waiting and stuck runs; "" if there are none."""
    kinds = ((len(waiting()), "wait to be logged"), (len(stuck()), "cannot be logged"))
    text = ", ".join(f"{count} {what}" for count, what in kinds if count)
    return f"Runs: {text}; see `mmq store stuck`." if text else ""


def _discard(path: Path) -> None:
    """Remove a folder, or a file of that name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
