"""Finding the files and picture folders of a data set, and drawing from what is there."""

import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from mmq.data.images import inside
from mmq.system.regular_file import is_folder, other_kind

log = logging.getLogger(__name__)
T = TypeVar("T")
_warned: set[Path] = set()
# where archives are unpacked to beside the folder itself
ANNOTATION_FOLDERS = ("", "annotations", "Annotations", "questions", "Questions", "questions1.2")
PICTURE_FOLDERS = ("", "images", "Images", "Images/mscoco", "coco", "coco/images")


def find_file(root: Path, *names: str) -> Path | None:
    """The first of these annotation files that is in the folder, or where archives put it."""
    places = (root / folder / name for name in names for folder in ANNOTATION_FOLDERS)
    return next((place for place in places if _is_file(place)), None)


def find_folder(root: Path, *names: str) -> Path | None:
    """The first of these picture folders that is in the folder, or where archives put it."""
    places = (root / folder / name for name in names for folder in PICTURE_FOLDERS)
    return next((place for place in places if is_folder(place)), None)


def _is_file(path: Path) -> bool:
    """Whether a regular file is there; a warning where something else has its name."""
    try:
        kind = other_kind(path)
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return False
        kind = "a link to nothing"
    except OSError as error:
        kind = f"not readable ({error.strerror})"
    if kind and path not in _warned:
        _warned.add(path)
        log.warning("annotations: %s is passed over: it is %s, not a regular file", path, kind)
    return not kind


def lacking(root: Path, files: Iterable[Sequence[str]], folders: Sequence[str]) -> list[str]:
    """What of a split is not there: files of which each may have several names, and a folder of
    several possible names with anything in it.
    """
    absent = [names[0] for names in files if not find_file(root, *names)]
    folder = find_folder(root, *folders)
    try:
        if folder is None or not any(folder.iterdir()):
            absent.append(f"{folders[0]}/*.jpg")
    except OSError as error:
        absent.append(f"{folders[0]}/*.jpg ({error.strerror})")
    return absent


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
        if name in listed[folder] or ("/" in name and _is_picture(inside(folder, name))):
            yield row
        else:
            missing += 1
    if missing:
        log.warning(
            "calibration: %d of %d training samples have no picture in %s",
            missing, total, ", ".join(map(str, listed)),
        )  # fmt: skip


def _file_names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as found:
            return {entry.name for entry in found if _is_picture(entry)}
    except OSError:
        return set()


def _is_picture(entry: "os.DirEntry[str] | Path") -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a loop, a name that is too long
        return False


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
