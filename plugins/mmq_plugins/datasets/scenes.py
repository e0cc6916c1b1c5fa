"""The embedded data set: scenes written in the official formats and read by the same loaders."""

from pathlib import Path
from typing import Any, ClassVar

from mmq.contracts import registry
from mmq.contracts.dataset import Dataset
from mmq.system.home import home
from mmq_plugins.embedded.scene_files import VERSION, write_scenes

READERS = {
    "captioning": ("coco-captions", "coco"),
    "vqa": ("vqav2", "coco"),
    "gqa": ("gqa", "gqa"),
    "retrieval": ("flickr30k", "flickr30k"),
}


class Scenes(Dataset):
    """500 unseen scenes with captions and questions, and a pool of minimal pairs; written on first
    use.
    """

    tasks: ClassVar[tuple[str, ...]] = tuple(READERS)
    layout: ClassVar[str] = "(comes with mmq, needs no folder)"
    bundled: ClassVar[bool] = True

    def recognizes(self, root: Path) -> bool:
        """Bundled: no folder is ever its own."""
        return False

    def samples(self, task: str, root: Path) -> list[Any]:
        """What the task's official reader finds in the written folder."""
        reader, folder = self._reader(task)
        samples: list[Any] = reader.samples(task, folder)
        return samples

    def calibration(self, task: str, root: Path, count: int, seed: int) -> list[Any] | None:
        """Training scenes, drawn by the task's official reader."""
        reader, folder = self._reader(task)
        return reader.calibration(task, folder, count, seed)

    def _reader(self, task: str) -> tuple[Dataset, Path]:
        folder = home() / "data" / f"scenes-{VERSION}"
        write_scenes(folder)
        name, part = READERS[task]
        reader: Dataset = registry.load("dataset", name)()
        return reader, folder / part
