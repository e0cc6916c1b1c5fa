"""COCO captions from the folder that the official downloads unpack to."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from mmq.contracts import CaptionSample, Dataset, FileImage, Sample, Splits
from mmq.contracts.dataset import Choose
from mmq.data.image_checks import inside
from mmq.errors import InputError
from mmq_plugins.datasets.annotations import IDENTIFIER, Unique, check_text, entries
from mmq_plugins.datasets.caption_files import check_repeats
from mmq_plugins.datasets.files import find_file, find_folder, has_files, lacking

log = logging.getLogger(__name__)
PICTURE = {"id": IDENTIFIER, "file_name": str}
CAPTION = {"image_id": IDENTIFIER, "caption": str}


class CocoCaptions(Dataset):
    """Captions of val2017, or of val2014 if the folder has only that."""

    tasks: ClassVar[tuple[str, ...]] = ("captioning",)
    layout: ClassVar[str] = (
        "FOLDER/annotations/captions_val2017.json   (or captions_val2014.json)\n"
        "FOLDER/val2017/*.jpg                       (or val2014/)\n"
        "for calibration (optional):\n"
        "FOLDER/annotations/captions_train2017.json (or captions_train2014.json)\n"
        "FOLDER/train2017/*.jpg                     (or train2014/)\n"
        "from https://cocodataset.org/#download"
    )
    # val2017 is a subset of val2014, and train2017 has the rest of val2014's pictures
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

    def splits(self, root: Path) -> Splits:
        """The split to score, and the first training split that belongs to it."""
        split = self._split(root)
        there = [n for n in self.training[split] if _file(root, n) and find_folder(root, n)]
        complete = [name for name in there if has_files(find_folder(root, name))]
        return Splits(split, next(iter([*complete, *there]), None))

    def read(self, root: Path, split: str) -> Iterator[CaptionSample]:
        """One sample per picture, in the file's order, with all its references."""
        path, pictures = _pictures(root, split)
        yield from _captioned(path, pictures, only_these=False)

    def select(self, root: Path, split: str, choose: Choose) -> list[Sample]:
        """The same for some pictures, without captions of others in memory."""
        path, pictures = _pictures(root, split)
        selected = choose(pictures)
        return [*_captioned(path, selected, only_these=True)] if selected else []

    def _split(self, root: Path) -> str:
        """The evaluated split: one with pictures, else one with captions, else val2017."""
        there = [split for split in self.training if _file(root, split)]
        complete = [split for split in there if find_folder(root, split)]
        return [*complete, *there, *self.training][0]


def _file(root: Path, split: str) -> Path | None:
    return find_file(root, f"captions_{split}.json")


def _pictures(root: Path, split: str) -> tuple[Path, Iterator[Sample]]:
    """A split's caption file, and its pictures, of which no two may share an id or a file."""
    path = _file(root, split) or root / "annotations" / f"captions_{split}.json"
    folder = find_folder(root, split) or root / split
    unique = [Unique(("id",), "file_name"), Unique(("file_name",), "id")]
    rows = ((str(row["id"]), row) for _, row in entries(path, "images", PICTURE, unique))
    return path, (Sample(key, key, _image(folder, row["file_name"])) for key, row in rows)


def _image(folder: Path, name: str) -> tuple[FileImage]:
    return (FileImage(inside(folder, name)),)


def _captioned(
    path: Path, pictures: Iterable[Sample], only_these: bool
) -> Iterator[CaptionSample]:
    """The pictures with their captions; captions of others are an error, or skipped."""
    images = {sample.id: sample.images for sample in pictures}
    references: dict[str, list[str]] = {key: [] for key in images}
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
            "captions: %d of %d pictures have no caption in %s; they are omitted",
            bare, len(images), path,
        )  # fmt: skip
    for key, captions in references.items():
        if captions:
            yield CaptionSample(key, key, images[key], tuple(captions))
