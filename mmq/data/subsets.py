"""Seeded random parts of a list, and of a stream of which only some samples can be used."""

import logging
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from mmq.contracts.dataset import Dataset
from mmq.contracts.images import FileImage
from mmq.contracts.samples import Sample

log = logging.getLogger(__name__)
T = TypeVar("T")
S = TypeVar("S", bound=Sample)
FOLDERS_IN_WARNING = 3


def subset(samples: Sequence[T], limit: int, seed: int) -> Sequence[T]:
    """A seeded random part in the original order; all samples if limit is 0 or too large."""
    if not limit or limit >= len(samples):
        return samples
    indices = sorted(random.Random(seed).sample(range(len(samples)), limit))
    return [samples[k] for k in indices]


def reservoir(items: Iterable[T], count: int, seed: int) -> list[T]:
    """`count` items drawn evenly from a stream, in its order; all of them if there are fewer.

    >>> reservoir(range(1000), 3, seed=0) == reservoir(iter(range(1000)), 3, seed=0)
    True
    """
    rng = random.Random(seed)
    sample: list[tuple[int, T]] = []
    for index, item in enumerate(items):
        if index < count:
            sample.append((index, item))
        elif (place := rng.randrange(index + 1)) < count:
            sample[place] = (index, item)
    return [item for _, item in sorted(sample, key=itemgetter(0))]


def draw_pairs(reader: Dataset, root: Path, split: str, count: int, seed: int) -> list[Sample]:
    """`count` samples of a split whose pictures are there, drawn evenly, in the split's order."""
    return reader.select(root, split, lambda rows: reservoir(with_pictures(rows), count, seed))


def has_pictures(reader: Dataset, root: Path, split: str) -> bool:
    """Whether a split has a sample whose pictures are there; reads no further than the first."""
    usable: list[Sample] = []

    def look(samples: Iterator[Sample]) -> list[Sample]:
        usable.extend(islice(with_pictures(samples), 1))
        return []  # no texts need to be read

    reader.select(root, split, look)
    return bool(usable)


def with_pictures(samples: Iterable[S]) -> Iterator[S]:
    """The samples whose picture files are all there; a warning counts the others.

    Each folder is listed once: on a network disk, one look per sample would be slow.
    """
    listed: dict[str, set[str]] = {}
    total = missing = 0
    for sample in samples:
        total += 1
        if all(_is_there(image, listed) for image in sample.images):
            yield sample
        else:
            missing += 1
    if missing:
        shown = ", ".join([*listed][:FOLDERS_IN_WARNING])
        more = ", ..." if len(listed) > FOLDERS_IN_WARNING else ""
        log.warning(
            "calibration: %d of %d training samples have no picture in %s%s",
            missing, total, shown, more,
        )  # fmt: skip


def _is_there(image: Any, listed: dict[str, set[str]]) -> bool:
    if not isinstance(image, FileImage):
        return True
    folder, name = os.path.split(image.name)
    if folder not in listed:
        listed[folder] = _file_names(folder or ".")
    return name in listed[folder]


def _file_names(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if _is_file(entry)}
    except OSError:
        return set()


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a loop
        return False
