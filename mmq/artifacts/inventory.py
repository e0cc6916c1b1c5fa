"""Every kind of file that mmq stores in its home, and how it is checked."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmq.system import checksums, sealed
from mmq.system.atomic import UNFINISHED
from mmq.system.sealed import Damaged, Unusable, unusable

Check = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Item:
    """A stored file or folder; `check` raises Unusable or FileNotFoundError."""

    kind: str
    path: Path
    check: Check

    def problem(self) -> Unusable | None:
        """What is wrong with it; None if it is intact or was removed meanwhile."""
        try:
            self.check(self.path)
        except FileNotFoundError:
            return Damaged("it is incomplete") if self.path.is_dir() else None
        except Unusable as problem:
            return problem
        return None


def remove(path: Path) -> bool:
    """Remove a stored file or run; False for a non-empty folder in a file's place."""
    try:
        if path.parent.name == "unlogged":
            shutil.rmtree(path)
        elif path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _tensors(path: Path) -> None:
    sealed.read_tensors(path, path.stem)


def _json(path: Path) -> None:
    sealed.verified_json(path)


def _run(path: Path) -> None:
    """Check the files of a run that waits to be logged."""
    problems = checksums.check_folder(path, path.name.partition("@")[0])
    for name, problem in problems.items():
        raise type(problem)(f"{name}: {problem}")


KINDS: tuple[tuple[str, str, str, Check], ...] = (  # plural, folder, pattern below it, check
    ("blocks", "store", "*.safetensors", _tensors),
    ("snapshots", "calibration", "*.safetensors", _tensors),
    ("stage outputs", "stages", "*.safetensors", _tensors),
    ("sensitivity profiles", "profiles", "*.json", _json),
    ("records", "records", "*/*.json", _json),
    ("records of studies", "studies", "*/*.json", _json),
    ("records of pruned trials", "studies", "*/*.pruned", _json),
    ("unlogged runs", "unlogged", "*@*", _run),
)


def items(home: Path) -> Iterator[Item]:
    """Every stored file in a home, by kind."""
    for kind, folder, pattern, check in KINDS:
        root = home / folder
        yield from _unlisted(kind, root, below="/" in pattern)
        for path in sorted(root.glob(pattern)):
            if UNFINISHED not in path.relative_to(root).parts:
                yield Item(kind, path, check)
    for checksum_file in sorted((home / "data").glob(f"*/{checksums.NAME}")):
        yield from _data(checksum_file.parent)


def _data(folder: Path) -> Iterator[Item]:
    """Embedded data: each file against the checksums beside it."""
    kind = "embedded data files"
    try:
        names = checksums.expected(folder, folder.name)
    except (FileNotFoundError, Unusable):
        yield Item(
            kind, folder / checksums.NAME, lambda _: checksums.expected(folder, folder.name)
        )
        return
    for name, checksum in names.items():
        yield Item(kind, folder / name, partial(checksums.check_file, checksum=checksum))


def _unlisted(kind: str, root: Path, below: bool) -> Iterator[Item]:
    """Folders that cannot be listed: without this, their files would be skipped silently."""
    roots = [root]
    if below:
        with suppress(OSError):  # reported below
            roots += [folder for folder in root.iterdir() if folder.is_dir()]
    for folder in roots:
        try:
            os.scandir(folder).close()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            yield Item(kind, folder, _raise(unusable(error)))


def _raise(problem: Unusable) -> Check:
    def check(path: Path) -> None:
        raise problem

    return check
