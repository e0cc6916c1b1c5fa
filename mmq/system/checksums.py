"""Folders of files that are read again later: their checksums lie among them, in a sealed file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mmq.system import sealed
from mmq.system.atomic import sync
from mmq.system.sealed import Damaged, Unusable

NAME = "checksums.json"


def seal_folder(folder: Path, name: str, durable: bool = True) -> None:
    """Write the checksums of all files in a folder, under a name that `check_folder` is given."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != NAME):
        files[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / NAME).write_text(sealed.dump_json({"files": files}, f"{name}/{NAME}", indent=1))
    if durable:
        for path in folder.rglob("*"):
            sync(path)
        sync(folder)


def expected(folder: Path, name: str) -> Mapping[str, str]:
    """Checksums by file. FileNotFoundError or Unusable where they are not known."""
    data = sealed.read_bytes(folder / NAME)
    files: Mapping[str, str] = sealed.load_json(data, f"{name}/{NAME}")["files"]
    return files


def check_folder(folder: Path, name: str) -> dict[str, Unusable]:
    """What is wrong with a folder's files, by file; empty where all is as it was written.

    FileNotFoundError or Unusable where the checksums themselves cannot be had.
    """
    problems: dict[str, Unusable] = {}
    for file, checksum in expected(folder, name).items():
        try:
            check_file(folder / file, checksum)
        except Unusable as problem:
            problems[file] = problem
    return problems


def check_file(path: Path, checksum: str) -> None:
    """Unusable where a file is not there or not of this checksum."""
    try:
        data = sealed.read_bytes(path)
    except FileNotFoundError as error:
        raise Damaged("it is missing") from error
    if hashlib.sha256(data).hexdigest() != checksum:
        raise Damaged(sealed.CONTENTS)
