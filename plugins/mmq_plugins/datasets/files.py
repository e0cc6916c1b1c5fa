"""Finding and streaming annotation files, with errors that say where the trouble is.

Files of hundreds of megabytes are read object by object: none ever stands in memory whole.
"""

import codecs
import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import ijson
from tqdm import tqdm

from mmq.errors import InputError
from mmq.images import inside

log = logging.getLogger(__name__)
T = TypeVar("T")
Wanted = Mapping[str, Any]  # key -> type or types, as isinstance takes them
IDENTIFIER = (int, str)
# where archives are unpacked to beside the folder itself
ANNOTATION_FOLDERS = ("", "annotations", "Annotations", "questions", "Questions", "questions1.2")
PICTURE_FOLDERS = ("", "images", "Images", "Images/mscoco", "coco", "coco/images")


def find_file(root: Path, *names: str) -> Path | None:
    """The first of these annotation files that is in the folder, or where archives put it."""
    places = (root / folder / name for name in names for folder in ANNOTATION_FOLDERS)
    return next((place for place in places if place.is_file()), None)


def find_folder(root: Path, *names: str) -> Path | None:
    """The first of these picture folders that is in the folder, or where archives put it."""
    places = (root / folder / name for name in names for folder in PICTURE_FOLDERS)
    return next((place for place in places if place.is_dir()), None)


def lacking(root: Path, files: Iterable[Sequence[str]], folders: Sequence[str]) -> list[str]:
    """What of a split is not there: files of which each may have several names, and a folder of
    several possible names with anything in it.
    """
    absent = [names[0] for names in files if not find_file(root, *names)]
    folder = find_folder(root, *folders)
    if folder is None or not any(folder.iterdir()):
        absent.append(f"{folders[0]}/*.jpg")
    return absent


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file for a streaming parser; InputError if it is missing or no JSON."""
    try:
        with path.open("rb") as file:
            if file.read(3) != codecs.BOM_UTF8:
                file.seek(0)
            # the bar shows only where a file takes longer than two seconds
            options = {"total": path.stat().st_size, "leave": False, "delay": 2}
            with tqdm.wrapattr(file, "read", desc=f"read {path.name}", **options) as watched:
                yield watched
    except FileNotFoundError as error:
        raise InputError(f"annotations: {path} does not exist") from error
    except (OSError, ijson.JSONError) as error:
        said = error.args[0] if error.args else error
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        first = text.strip().partition("\n")[0]  # the parser goes on with a picture of the place
        raise InputError(f"annotations: {path} is not readable JSON ({first.strip()})") from error


def entries(path: Path, section: str, wanted: Wanted) -> Iterator[tuple[int, Any]]:
    """Position and object of every entry of a section ("" is a file that is one list), each with
    the wanted keys and types; InputError naming the first that lacks one.
    """
    index = -1
    with opened(path) as file:
        prefix = f"{section}.item" if section else "item"
        for index, row in enumerate(ijson.items(file, prefix, use_float=True)):
            check_entry(row, wanted, path, f"{section}[{index}]")
            yield index, row
    if index < 0:
        raise InputError(f"annotations: {path}{_why_nothing(path, section)}")


def keyed_entries(path: Path, wanted: Wanted) -> Iterator[tuple[str, Any]]:
    """Key and object of every entry of a file that is one object, checked like `entries`."""
    empty = True
    with opened(path) as file:
        for key, row in ijson.kvitems(file, "", use_float=True):
            check_entry(row, wanted, path, f"entry {key!r}")
            empty = False
            yield key, row
    if empty:
        raise InputError(f"annotations: {path} has no entries; it should be one object of them")


def check_entry(row: Any, wanted: Wanted, path: Path, place: str) -> None:
    """InputError where an entry lacks a wanted key or has it with another type."""
    for key, kind in wanted.items():
        if not isinstance(row, dict) or not isinstance(row.get(key), kind):
            names = " or ".join(k.__name__ for k in (kind if type(kind) is tuple else (kind,)))
            raise InputError(f"annotations: {path}: {place} has no {key!r} of type {names}")


def _why_nothing(path: Path, section: str) -> str:
    """What to say of a section without entries: it is empty, or it is no list."""
    with opened(path) as file:
        is_list = any(
            place == section and event == "start_array" for place, event, _ in ijson.parse(file)
        )
    if is_list:
        return f": the list {section!r} is empty" if section else " is an empty list"
    return f" has no list {section!r}" if section else " is no list"


def draw(
    rows: Iterable[T], place: Callable[[T], tuple[Path, str]], count: int, seed: int
) -> list[T] | None:
    """`count` of the rows whose picture is there, drawn evenly; None where there is none.

    place: the folder and file name of a row's picture. With count 0 nothing is read behind the
    first such row, and nothing is drawn.
    """
    usable = _with_picture(rows, place)
    if not count:
        return None if next(usable, None) is None else []
    return reservoir(usable, count, seed) or None


def _with_picture(rows: Iterable[T], place: Callable[[T], tuple[Path, str]]) -> Iterator[T]:
    """The rows whose picture is there; each folder is listed once: a look a row would be slow."""
    listed: dict[Path, set[str]] = {}
    total = missing = 0
    for row in rows:
        total += 1
        folder, name = place(row)
        if folder not in listed:
            listed[folder] = _file_names(folder)
        if name in listed[folder] or ("/" in name and inside(folder, name).is_file()):
            yield row
        else:
            missing += 1
    if missing:
        log.warning(
            "calibration: %d of %d training samples have no picture in %s",
            missing, total, ", ".join(map(str, listed)),
        )  # fmt: skip


def _file_names(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as found:
        return {entry.name for entry in found if entry.is_file()}


def reservoir(items: Iterable[T], count: int, seed: int) -> list[T]:
    """`count` items drawn evenly from a stream, in its order; all of them where there are fewer.

    >>> reservoir(range(1000), 3, seed=0) == reservoir(iter(range(1000)), 3, seed=0)
    True
    """
    rng = random.Random(seed)
    kept: list[tuple[int, T]] = []
    for index, item in enumerate(items):
        if index < count:
            kept.append((index, item))
        elif (place := rng.randrange(index + 1)) < count:
            kept[place] = (index, item)
    return [item for _, item in sorted(kept, key=itemgetter(0))]
