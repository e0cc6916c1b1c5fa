"""The embedded data set: scenes written in the official formats and read by the same readers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from mmq.contracts import Dataset, Sample, Splits, registry
from mmq.contracts.dataset import Choose
from mmq.system.home import home
from mmq_plugins.embedded.scene_files import VERSION, write_scenes

_written: set[Path] = set()  # in this process
READERS = {
    "captioning": ("coco-captions", "coco"),
    "vqa": ("vqav2", "coco"),
    "gqa": ("gqa", "gqa"),
    "retrieval": ("flickr30k", "flickr30k"),
    "short-answer": ("vqav2", "coco"),
    "yes-no": ("vqav2", "coco"),
}


@dataclass(frozen=True)
class Scenes(Dataset):
    """500 scenes with captions and questions, and minimal pairs; written on first use."""

    task: str = "captioning"

    tasks: ClassVar[tuple[str, ...]] = tuple(READERS)
    layout: ClassVar[str] = "(comes with mmq, needs no folder)"
    bundled: ClassVar[bool] = True

    def for_task(self, task: str) -> Self:
        """The scenes with this task's questions or captions."""
        return type(self)(task)

    def splits(self, root: Path) -> Splits:
        """Those of the task's official reader, in the written folder."""
        reader, folder = self._reader()
        return reader.splits(folder)

    def read(self, root: Path, split: str) -> Iterator[Sample]:
        """What the task's official reader finds in the written folder."""
        reader, folder = self._reader()
        yield from filter(self._fits, reader.read(folder, split))

    def select(self, root: Path, split: str, choose: Choose) -> list[Sample]:
        """The same, in the official reader's own way."""
        reader, folder = self._reader()
        if self.task == "yes-no":  # the kind of a question is known after reading it
            return choose(self.read(root, split))
        return reader.select(folder, split, choose)

    def _fits(self, sample: Sample) -> bool:
        return self.task != "yes-no" or getattr(sample, "answer_type", "") == "yes/no"

    def _reader(self) -> tuple[Dataset, Path]:
        folder = home() / "data" / f"scenes-{VERSION}"
        if folder not in _written or not folder.is_dir():
            write_scenes(folder)  # which compares checksums
            _written.add(folder)
        name, part = READERS[self.task]
        reader: Dataset = registry.load("dataset", name)()
        return reader, folder / part
