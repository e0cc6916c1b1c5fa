"""The evaluation set that --data names: found, cut by --limit, fingerprinted."""

import hashlib
import json
import logging
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from mmq.contracts import registry
from mmq.contracts.dataset import Dataset
from mmq.errors import InputError
from mmq.system.regular_file import is_folder

log = logging.getLogger(__name__)
LIMIT = re.compile(r"(\d+)|(\d+(?:\.\d+)?) ?%", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """A data set plugin with the folder that it reads for a task."""

    name: str
    reader: Dataset
    task: str
    root: Path

    def samples(self) -> list[Any]:
        """All evaluation samples; InputError where files are missing or ids are not unique."""
        if absent := self.reader.lacking(self.root):
            raise InputError(
                f"data: {self.name} in {str(self.root)!r} lacks {', '.join(absent)}. "
                f"The expected layout:\n\n{self.reader.layout}"
            )
        samples = self.reader.samples(self.task, self.root)
        self._check_ids(samples)
        if not samples:
            raise InputError(f"data: {self.name} in {str(self.root)!r} has no samples")
        return samples

    def calibration(self, count: int, seed: int) -> list[Any] | None:
        """`count` samples of the training split, or None where there is none."""
        pairs = self.reader.calibration(self.task, self.root, count, seed)
        self._check_ids(pairs or [])
        return pairs

    def _check_ids(self, samples: Iterable[Any]) -> None:
        """InputError where two samples have one id, two pictures one id, or one picture two."""
        where = f"data: {self.name} in {str(self.root)!r}"
        ids: dict[str, Path] = {}
        pictures: dict[str, Path] = {}
        names: dict[Path, str] = {}
        for sample in samples:
            if sample.id in ids:
                raise InputError(
                    f"{where} has two samples of the id {sample.id}, on {ids[sample.id]} and "
                    f"{sample.image}; correct the annotation files"
                )
            ids[sample.id] = sample.image
            if (path := pictures.setdefault(sample.image_id, sample.image)) != sample.image:
                raise InputError(
                    f"{where} has two pictures of the id {sample.image_id}, {path} and "
                    f"{sample.image}; correct the annotation files"
                )
            if (name := names.setdefault(sample.image, sample.image_id)) != sample.image_id:
                raise InputError(
                    f"{where} has the picture {sample.image} under two ids, {name} and "
                    f"{sample.image_id}; correct the annotation files"
                )


def find_source(task: str, data: str, dataset: str = "") -> Source:
    """The plugin and folder for --data and --dataset; InputError that prints the layouts."""
    if dataset:
        reader: Dataset = registry.load_class("dataset", dataset, Dataset)()
        if task not in reader.tasks:
            fitting = ", ".join(name for name in dataset_readers(task))
            raise InputError(
                f"dataset: {dataset!r} does not serve the task {task!r}; these do: {fitting}"
            )
        readers: dict[str, Dataset] = {dataset: reader}
    else:
        readers = dataset_readers(task)
    if data in readers and readers[data].bundled:
        return Source(data, readers[data], task, Path())
    root = Path(data)
    layouts = "\n\n".join(
        f"{name}:\n{reader.layout}" for name, reader in readers.items() if not reader.bundled
    )
    if not is_folder(root):
        bundled = ", ".join(name for name, reader in readers.items() if reader.bundled) or "none"
        raise InputError(
            f"data: there is no folder {data!r}, and no bundled data set of that name for "
            f"the task {task} (bundled: {bundled}). Expected layouts:\n\n{layouts}"
        )
    fitting_names = [name for name, reader in readers.items() if reader.recognizes(root)]
    if len(fitting_names) > 1:
        log.warning(
            "data: %r can be read as %s; it is read as %s. Choose with --dataset.",
            data, " or ".join(fitting_names), fitting_names[0],
        )  # fmt: skip
    if not (name := dataset or next(iter(fitting_names), "")):
        raise InputError(
            f"data: {data!r} holds no data set for the task {task!r}. "
            f"Expected layouts:\n\n{layouts}"
        )
    return Source(name, readers[name], task, root)


def dataset_readers(task: str = "") -> dict[str, Dataset]:
    """Every usable data set plugin (for a task); broken ones are passed over with a warning."""
    readers = {}
    for plugin in registry.installed("dataset"):
        try:
            reader: Dataset = registry.load_class("dataset", plugin.name, Dataset)()
        except InputError as error:
            log.warning("%s", error)
            continue
        if not task or task in reader.tasks:
            readers[plugin.name] = reader
    if not readers:
        raise InputError(f"No installed data set serves the task {task!r}.")
    return readers


def limited(limit: str | int, total: int) -> int:
    """How many of `total` samples --limit asks for: 500, or 10% (rounded down, at least one).

    >>> limited("10%", 214354), limited("500", 214354), limited("0", 214354)
    (21435, 500, 214354)
    """
    text = str(limit).strip()
    if re.fullmatch(r"-\d+(\.\d+)? ?%?", text):
        raise InputError(f"limit: {text} is negative")
    match = LIMIT.fullmatch(text)
    if match is None:
        raise InputError(
            f"limit: {text!r} is neither a number of samples nor a share; write 500, 10%, "
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


def subset(samples: Sequence[Any], limit: int, seed: int) -> Sequence[Any]:
    """A seeded random part in the original order; all samples where limit is 0 or too large."""
    if not limit or limit >= len(samples):
        return samples
    chosen = sorted(random.Random(seed).sample(range(len(samples)), limit))
    return [samples[k] for k in chosen]


def fingerprint_samples(
    everything: Sequence[Any], samples: Sequence[Any], images: Mapping[Path, str]
) -> str:
    """A hash of the chosen samples' pictures and texts, and of all texts.

    All texts count, since an evaluator may look at the whole set (CIDEr's document frequencies).
    """
    hashed = hashlib.sha256()
    for sample in everything:  # one by one: together they would stand in memory twice
        values = [getattr(sample, field.name) for field in fields(sample)]
        plain = [value.name if isinstance(value, Path) else value for value in values]
        hashed.update(json.dumps(plain, default=str).encode())
    for sample in samples:
        hashed.update(json.dumps([sample.id, images[sample.image]]).encode())
    return hashed.hexdigest()[:20]
