"""COCO captions from the folder that the official downloads unpack to."""

from pathlib import Path
from typing import Any, ClassVar

from mmq.contracts import CaptionSample, Dataset
from mmq.errors import InputError
from mmq.images import inside
from mmq_plugins.datasets.files import entries, read_json

IDENTIFIER = (int, str)


class CocoCaptions(Dataset):
    """Captions of val2017, or of val2014 where that is what the folder holds."""

    tasks: ClassVar[tuple[str, ...]] = ("captioning",)
    layout: ClassVar[str] = (
        "FOLDER/annotations/captions_val2017.json   (or captions_val2014.json)\n"
        "FOLDER/val2017/*.jpg                       (or val2014/)\n"
        "from https://cocodataset.org/#download"
    )
    splits: ClassVar[tuple[str, ...]] = ("val2017", "val2014")

    def _file(self, root: Path, split: str) -> Path:
        return root / "annotations" / f"captions_{split}.json"

    def recognizes(self, root: Path) -> bool:
        """Whether one of the caption files is there."""
        return any(self._file(root, split).is_file() for split in self.splits)

    def samples(self, task: str, root: Path) -> list[Any]:
        """One sample a picture, in the file's order, with all its references."""
        split = next((s for s in self.splits if self._file(root, s).is_file()), self.splits[0])
        path = self._file(root, split)
        content = read_json(path)
        images: dict[str, str] = {}
        for row in entries(content, path, "images", {"id": IDENTIFIER, "file_name": str}):
            images[str(row["id"])] = row["file_name"]
        references: dict[str, list[str]] = {key: [] for key in images}
        wanted = {"image_id": IDENTIFIER, "caption": str}
        for index, row in enumerate(entries(content, path, "annotations", wanted)):
            key = str(row["image_id"])
            if key not in references:
                raise InputError(
                    f"annotations: {path}: annotations[{index}] names image {key}, "
                    f"which is not among the images"
                )
            references[key].append(row["caption"])
        return [
            CaptionSample(key, key, inside(root / split, images[key]), tuple(captions))
            for key, captions in references.items()
            if captions
        ]
