"""Samples of lmms-eval's tasks: rows of a data set, and pictures as the task shows them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from mmq.contracts import ImageRef, QuestionSample
from mmq.errors import InputError
from mmq.system.image_decoding import ImageFacts, decode_image, image_facts
from mmq.system.image_modes import as_shown
from mmq_plugins.lmms.local_task import open_task


@dataclass(frozen=True, slots=True)
class TaskImage(ImageRef):
    """A picture of a row, as the task's code shows it: cropped, drawn on, or as it is."""

    root: Path
    task: str
    split: str
    row: int
    index: int
    name: str = field(compare=False, repr=False)

    def open(self) -> Image.Image:
        """The picture as 8-bit RGB."""
        visuals = open_task(self.root, self.task, self.split).visuals(self.row)
        if self.index >= len(visuals):
            raise InputError(
                f"image: {self.name} is not there: lmms:{self.task} shows {len(visuals)} pictures"
            )
        return as_shown(visuals[self.index])[0]

    def digest(self) -> str:
        """A hash of the cell's content if the task shows it unchanged, or else of the pixels."""
        return _facts(self).digest

    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return _facts(self).size


@lru_cache(maxsize=8)
def _undecoded(root: Path, task: str, split: str) -> Any:
    """The cells of a split that hold one picture each, as files."""
    from datasets import Image as Picture

    data = open_task(root, task, split).task.dataset[split]
    names = [name for name, kind in data.features.items() if isinstance(kind, Picture)]
    data = data.select_columns(names)
    for name in names:
        data = data.cast_column(name, Picture(decode=False))
    return data


@cache
def _facts(image: TaskImage) -> ImageFacts:
    opened = image.open()
    cells = _undecoded(image.root, image.task, image.split)[image.row].values()
    for content in (cell["bytes"] for cell in cells if cell and cell.get("bytes")):
        # the same digest as in other data sets, so that shared pictures are found
        if decode_image(image.name, content).tobytes() == opened.tobytes():
            return image_facts(image.name, content)
    pixels = f"{opened.size} ".encode() + opened.tobytes()
    return ImageFacts(hashlib.sha256(pixels).hexdigest(), opened.size)


@dataclass(frozen=True, slots=True)
class LmmsSample(QuestionSample):
    """A row of a task. question: the prompt of lmms-eval. row: its other cells, for the score."""

    row: Mapping[str, Any] = field(default_factory=dict)
