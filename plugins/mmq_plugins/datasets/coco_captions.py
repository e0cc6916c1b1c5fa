"""COCO captions from the folder that the official downloads unpack to."""

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mmq.contracts import CaptionSample
from mmq.contracts.dataset import Dataset
from mmq.data.images import inside
from mmq.errors import InputError
from mmq_plugins.datasets.annotations import IDENTIFIER, Unique, check_text, entries
from mmq_plugins.datasets.caption_files import check_repeats
from mmq_plugins.datasets.files import draw, find_file, find_folder, lacking

log = logging.getLogger(__name__)
PICTURE = {"id": IDENTIFIER, "file_name": str}
CAPTION = {"image_id": IDENTIFIER, "caption": str}


class CocoCaptions(Dataset):
    """Captions of val2017, or of val2014 where that is what the folder holds."""

    tasks: ClassVar[tuple[str, ...]] = ("captioning",)
    layout: ClassVar[str] = (
        "FOLDER/annotations/captions_val2017.json   (or captions_val2014.json)\n"
        "FOLDER/val2017/*.jpg                       (or val2014/)\n"
        "for calibration, if wanted:\n"
        "FOLDER/annotations/captions_train2017.json (or captions_train2014.json)\n"
        "FOLDER/train2017/*.jpg                     (or train2014/)\n"
        "from https://cocodataset.org/#download"
    )
    # val2017 was taken from val2014, so that train2017 holds most of val2014's pictures
    training: ClassVar[dict[str, tuple[str, ...]]] = {
        "val2017": ("train2017", "train2014"),
        "val2014": ("train2014",),
    }

    def recognizes(self, root: Path) -> bool:
        """Whether one of the caption files is there."""
        return any(_file(root, split) for split in self.training)

    def lacking(self, root: Path) -> list[str]:
        """Captions or pictures of the evaluated split."""
        split = self._split(root)
        return lacking(root, [[f"captions_{split}.json"]], [split])

    def samples(self, task: str, root: Path) -> list[Any]:
        """One sample a picture, in the file's order, with all its references."""
        split = self._split(root)
        path = _file(root, split) or root / "annotations" / f"captions_{split}.json"
        return _read(
            path, find_folder(root, split) or root / split, _pictures(path), only_these=False
        )

    def calibration(self, task: str, root: Path, count: int, seed: int) -> list[Any] | None:
        """Pictures of the training split that belongs to the evaluated one."""
        for split in self.training[self._split(root)]:
            path, folder = _file(root, split), find_folder(root, split)
            if path and folder:
                drawn = draw(_pictures(path), partial(_place, folder), count, seed)
                if drawn is not None:
                    return _read(path, folder, drawn, only_these=True) if drawn else []
        return None

    def _split(self, root: Path) -> str:
        """The evaluated split: one with pictures, else one with captions, else val2017."""
        there = [split for split in self.training if _file(root, split)]
        complete = [split for split in there if find_folder(root, split)]
        return [*complete, *there, *self.training][0]


def _place(folder: Path, row: Any) -> tuple[Path, str]:
    return folder, row["file_name"]


def _file(root: Path, split: str) -> Path | None:
    return find_file(root, f"captions_{split}.json")


def _pictures(path: Path) -> Iterator[Any]:
    """The rows of pictures, of which no two may share an id or a file."""
    unique = [Unique(("id",), "file_name"), Unique(("file_name",), "id")]
    return (row for _, row in entries(path, "images", PICTURE, unique))


def _read(path: Path, folder: Path, pictures: Iterable[Any], only_these: bool) -> list[Any]:
    """The pictures with their captions; captions of others are an error, or passed over."""
    files = {str(row["id"]): row["file_name"] for row in pictures}
    references: dict[str, list[str]] = {key: [] for key in files}
    # ids of captions are no keys: only rows of the same id, picture and caption are copies
    unique = [Unique(("image_id", "caption"), optional=("id",))]
    for index, row in entries(path, "annotations", CAPTION, unique):
        key, place = str(row["image_id"]), f"annotations[{index}]"
        if key not in references:
            if only_these:
                continue
            raise InputError(
                f"annotations: {path}: {place} names image {key}, which is not among the images"
            )
        check_text(row["caption"], path, f"the caption of {place}")
        references[key].append(row["caption"])
    check_repeats(path, references)
    if bare := sum(not captions for captions in references.values()):
        log.warning(
            "captions: %d of %d pictures have no caption in %s; they are left out",
            bare, len(files), path,
        )  # fmt: skip
    return [
        CaptionSample(key, key, inside(folder, files[key]), tuple(captions))
        for key, captions in references.items()
        if captions
    ]
