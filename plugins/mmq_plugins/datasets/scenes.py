"""The embedded data set: scenes written in the official formats and read by the same loaders."""

from pathlib import Path
from typing import Any, ClassVar

from mmq import registry
from mmq.contracts import Dataset
from mmq.home import home
from mmq_plugins.embedded.scene_files import VERSION, write_scenes

READERS = {"captioning": "coco-captions", "vqa": "vqav2"}


class Scenes(Dataset):
    """500 unseen scenes with five captions and two questions each; written on first use."""

    tasks: ClassVar[tuple[str, ...]] = tuple(READERS)
    layout: ClassVar[str] = "(comes with mmq, needs no folder)"
    bundled: ClassVar[bool] = True

    def recognizes(self, root: Path) -> bool:
        """Bundled: no folder is ever its own."""
        return False

    def samples(self, task: str, root: Path) -> list[Any]:
        """What the task's official reader finds in the written folder."""
        folder = home() / "data" / f"scenes-{VERSION}"
        write_scenes(folder)
        samples: list[Any] = registry.load("dataset", READERS[task])().samples(task, folder)
        return samples
