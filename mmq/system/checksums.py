"""Checksums of a folder's files, in a sealed file among them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mmq.system import sealed
from mmq.system.atomic import sync
from mmq.system.sealed import Damaged, Unusable

NAME = "checksums.json"


def seal_folder(folder: Path, name: str, durable: bool = True) -> None:
    """Write the checksums of a folder's files, sealed with a name for `check_folder`."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != NAME):
        files[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / NAME).write_text(sealed.dump_json({"files": files}, f"{name}/{NAME}", indent=1))
    if durable:
        for path in folder.rglob("*"):
            sync(path)
        sync(folder)


def expected(folder: Path, name: str) -> Mapping[str, str]:
    """Checksums by file; FileNotFoundError or Unusable if there are no valid ones."""
    data = sealed.read_bytes(folder / NAME)
    files: Mapping[str, str] = sealed.load_json(data, f"{name}/{NAME}")["files"]
    return files


def check_folder(folder: Path, name: str) -> dict[str, Unusable]:
    """Problems by file; empty if every file is as it was written.

    FileNotFoundError or Unusable if the checksums themselves cannot be read.
    """
    problems: dict[str, Unusable] = {}
    for file, checksum in expected(folder, name).items():
        try:
            check_file(folder / file, checksum)
        except Unusable as problem:
            problems[file] = problem
    return problems


def check_file(path: Path, checksum: str) -> None:
    """Raise Unusable if a file is missing or has another checksum."""
    try:
        data = sealed.read_bytes(path)
    except FileNotFoundError as error:
        raise Damaged("it is missing") from error
    if hashlib.sha256(data).hexdigest() != checksum:
        raise Damaged(sealed.CONTENTS)
