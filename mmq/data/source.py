"""The evaluation set that --data names: located, limited and fingerprinted."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

from mmq.contracts import registry
from mmq.contracts.dataset import Dataset
from mmq.contracts.images import ImageRef
from mmq.contracts.samples import Sample
from mmq.data.subsets import draw_pairs
from mmq.errors import InputError
from mmq.system.regular_file import is_folder

log = logging.getLogger(__name__)
LIMIT = re.compile(r"(\d+)|(\d+(?:\.\d+)?) ?%", re.ASCII)
Images = tuple[ImageRef, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A data set plugin with the folder that it reads."""

    name: str
    reader: Dataset
    root: Path

    def samples(self) -> list[Sample]:
        """All evaluation samples; InputError if files are missing or ids are not unique."""
        if absent := self.reader.lacking(self.root):
            raise self._error(f"lacks {', '.join(absent)}.")
        try:
            split = self.reader.splits(self.root).evaluation
            samples = list(self.reader.read(self.root, split))
        except OSError as error:  # a reader that opens files without checking for them
            if self.reader.bundled:  # it writes its pictures to MMQ_HOME: the disk is the problem
                raise
            raise self._error(f"cannot be read ({error}).") from error
        self._check_ids(samples)
        if not samples:
            raise InputError(f"data: {self.name} in {str(self.root)!r} has no samples")
        return samples

    def calibration(self, count: int, seed: int) -> list[Sample] | None:
        """`count` seeded samples of the training split with existing pictures; None if none has.

        Never reads a split that shares pictures with the evaluated one.
        """
        if (split := self.reader.splits(self.root).calibration) is None:
            return None
        pairs = draw_pairs(self.reader, self.root, split, count, seed)
        self._check_ids(pairs)
        return pairs or None

    def has_training(self) -> bool:
        """Whether there is a training split."""
        return self.reader.splits(self.root).calibration is not None

    def training(self, count: int, seed: int) -> list[Sample]:
        """`count` seeded samples of the training split, or of the only split."""
        splits = self.reader.splits(self.root)
        split = splits.calibration or splits.evaluation
        samples = draw_pairs(self.reader, self.root, split, count, seed)
        self._check_ids(samples)
        return samples

    def _error(self, problem: str) -> InputError:
        return InputError(
            f"data: {self.name} in {str(self.root)!r} {problem} "
            f"The expected layout:\n\n{self.reader.layout}"
        )

    def _check_ids(self, samples: Iterable[Sample]) -> None:
        """InputError if two samples share an id, two pictures an id, or one picture has two."""
        where = f"data: {self.name} in {str(self.root)!r}"
        ids: dict[str, Images] = {}
        pictures: dict[str, Images] = {}
        names: dict[Images, str] = {}
        for sample in samples:
            if sample.id in ids:
                raise InputError(
                    f"{where} has two samples with the id {sample.id}, on "
                    f"{_names(ids[sample.id])} and {_names(sample.images)}; correct the "
                    f"annotation files"
                )
            ids[sample.id] = sample.images
            first = pictures.setdefault(sample.image_id, sample.images)
            if first != sample.images:
                raise InputError(
                    f"{where} has two pictures with the id {sample.image_id}, {_names(first)} and "
                    f"{_names(sample.images)}; correct the annotation files"
                )
            name = names.setdefault(sample.images, sample.image_id)
            if name != sample.image_id:
                raise InputError(
                    f"{where} has the picture {_names(sample.images)} under two ids, {name} and "
                    f"{sample.image_id}; correct the annotation files"
                )


def _names(images: Images) -> str:
    return " + ".join(image.name for image in images)


def find_source(task: str, data: str, dataset: str = "", fields: str = "") -> Source:
    """The plugin and folder (or file) for --data, --dataset and --fields; InputError if none."""
    readers = _candidates(task, dataset, fields)
    if data in readers and readers[data].bundled:
        return Source(data, readers[data], Path())
    root = Path(data)
    if not (is_folder(root) or _is_there(root)):
        if fields and data in (own := _candidates(task, dataset, "")) and own[data].bundled:
            raise InputError(
                f"fields: they name the columns of a table, and --data is the bundled {data!r}; "
                f"give a table of your own (e.g. --data photos.csv), or leave --fields out"
            )
        bundled = ", ".join(name for name, reader in readers.items() if reader.bundled) or "none"
        kind = "file" if root.suffix else "folder"
        raise InputError(
            f"data: there is no {kind} {data!r}, and no bundled data set of that name for "
            f"the task {task} (bundled: {bundled}). Expected layouts:\n\n{_layouts(readers)}"
        )
    if not (name := dataset or _recognized(task, root, readers)):
        raise InputError(
            f"data: {data!r} contains no data set for the task {task!r}. "
            f"Expected layouts:\n\n{_layouts(readers)}"
        )
    reader = readers[name].with_fields(fields) if fields else readers[name]
    return Source(name, reader, root)


def find_texts(data: str) -> Iterator[str] | None:
    """The texts of data without pictures; None for a data set of a task, or no data at all."""
    root = Path(data)
    if not _is_there(root):
        return None
    readers = [reader for reader in dataset_readers().values() if reader.recognizes(root)]
    if not all(reader.is_fallback for reader in readers):
        return None
    return next((texts for reader in readers if (texts := reader.texts(root)) is not None), None)


def _candidates(task: str, dataset: str, fields: str) -> dict[str, Dataset]:
    """The readers to choose from: the named one, those that read --fields, or all of the task."""
    if not dataset:
        readers = dataset_readers(task)
        return {n: r for n, r in readers.items() if r.is_fallback} if fields else readers
    reader = _reader(dataset)
    if not reader.supports(task):
        fitting = ", ".join(name for name in dataset_readers(task))
        raise InputError(
            f"dataset: {dataset!r} does not support the task {task!r}; these do: {fitting}"
        )
    return {dataset: reader.for_task(task)}


def _recognized(task: str, root: Path, readers: Mapping[str, Dataset]) -> str:
    """The reader that recognizes the data, "" if none does.

    InputError if one for other tasks does, and for this task, only a fallback.
    """
    names = [name for name, reader in readers.items() if reader.recognizes(root)]
    fitting = [name for name in names if not readers[name].is_fallback]
    if len(fitting) > 1:
        log.warning(
            "data: %r can be read as %s; it is read as %s. Choose with --dataset.",
            str(root), " or ".join(fitting), fitting[0],
        )  # fmt: skip
    if not fitting and len(readers) > len(names):
        _suggest_task(task, root, names)
    return next(iter(fitting or names), "")


def _suggest_task(task: str, root: Path, fallbacks: Sequence[str]) -> None:
    """InputError if a reader for other tasks recognizes the data."""
    for name, reader in dataset_readers().items():
        if reader.is_fallback or reader.supports(task) or not reader.recognizes(root):
            continue
        anyway = f", or --dataset {fallbacks[0]} to read it as a table" if fallbacks else ""
        raise InputError(
            f"data: {str(root)!r} is {name}, which has no samples for the task {task!r}; pass "
            f"--task {' or --task '.join(reader.tasks)}{anyway}"
        )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a link in a loop, a name that is too long
        return False


def _layouts(readers: Mapping[str, Dataset]) -> str:
    return "\n\n".join(
        f"{name}:\n{reader.layout}" for name, reader in readers.items() if not reader.bundled
    )


def dataset_readers(task: str = "") -> dict[str, Dataset]:
    """Every usable data set plugin (for a task); a warning for each that is broken."""
    readers = {}
    for plugin in registry.installed("dataset"):
        try:
            reader = _reader(plugin.name)
        except InputError as error:
            log.warning("%s", error)
            continue
        if not task or reader.supports(task):
            readers[plugin.name] = reader.for_task(task) if task else reader
    if not readers:
        raise InputError(f"No installed data set supports the task {task!r}.")
    return readers


def _reader(name: str) -> Dataset:
    plugin = registry.load_class("dataset", name, Dataset)
    try:
        reader: Dataset = plugin()
    except TypeError as error:  # a method of the contract is missing
        raise InputError(f"The dataset {name!r} cannot be used: {error}") from error
    return reader


def limited(limit: str | int, total: int) -> int:
    """The number of samples that --limit selects: 500, or 10% (rounded down, at least one).

    >>> limited("10%", 214354), limited("500", 214354), limited("0", 214354)
    (21435, 500, 214354)
    """
    text = str(limit).strip()
    if re.fullmatch(r"-\d+(\.\d+)? ?%?", text):
        raise InputError(f"limit: {text} is negative")
    match = LIMIT.fullmatch(text)
    if match is None:
        raise InputError(
            f"limit: {text!r} is neither a number of samples nor a percentage; write 500, 10%, "
            f"or 0 for all samples"
        )
    if match[1]:
        if 0 < total < int(match[1]):
            log.warning("limit: %s, but there are only %d samples; all are scored", text, total)
        return min(int(match[1]), total) or total
    share = Fraction(match[2]) / 100
    if not 0 < share <= 1:
        raise InputError(f"limit: {text!r} is not more than 0% and at most 100%")
    return max(1, int(share * total))


def fingerprint_samples(
    everything: Sequence[Sample], samples: Sequence[Sample], digests: Mapping[ImageRef, str]
) -> str:
    """A hash of the drawn samples' pictures and texts, and of all texts.

    All texts count, since an evaluator may look at the whole set (CIDEr's document frequencies).
    For pictures that are not scored, only the file name counts, without its folder.
    """
    hashed = hashlib.sha256()
    for sample in everything:  # one by one: together they would be in memory twice
        values = [getattr(sample, field.name) for field in fields(sample)]
        plain = [_base_names(value) if value is sample.images else value for value in values]
        hashed.update(json.dumps(plain, default=str).encode())
    for sample in samples:
        image_digests = [digests[image] for image in sample.images]
        hashed.update(json.dumps([sample.id, *image_digests]).encode())
    return hashed.hexdigest()[:20]


def _base_names(images: Images) -> str | list[str]:
    """One name for one picture: fingerprints of earlier versions stay valid."""
    names = [os.path.basename(image.name) for image in images]
    return names[0] if len(names) == 1 else names
