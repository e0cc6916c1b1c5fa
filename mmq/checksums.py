"""Folders of files that are read again later: their checksums lie among them, in a sealed file."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from mmq import sealed
from mmq.sealed import Damaged, Unusable
from mmq.whole import sync

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
            data = sealed.read_bytes(folder / file)
            if hashlib.sha256(data).hexdigest() != checksum:
                problems[file] = Damaged(sealed.CONTENTS)
        except FileNotFoundError:
            problems[file] = Damaged("it is missing")
        except Unusable as problem:
            problems[file] = problem
    return problems


def check_file(folder: Path, name: str, file: str) -> bytes:
    """The content of one of a folder's files; FileNotFoundError or Unusable without it."""
    data = sealed.read_bytes(folder / file)
    if hashlib.sha256(data).hexdigest() != expected(folder, name).get(file):
        raise Damaged(sealed.CONTENTS)
    return data


def relative_names(folder: Path) -> list[str]:
    """All files below a folder, whether they are sealed or not."""
    return sorted(
        os.path.relpath(os.path.join(where, file), folder)
        for where, _, files in os.walk(folder)
        for file in files
    )
