"""COCO by Karpathy's splits: the 5,000 test pictures that captioning papers report."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from mmq.contracts.dataset import Dataset
from mmq_plugins.datasets.caption_files import Captioned, read_karpathy, read_lavis
from mmq_plugins.datasets.files import draw, find_file, find_folder, lacking

KARPATHY, LAVIS = "dataset_coco.json", "coco_karpathy_{}.json"
FOLDERS = ("val2014", "train2014")


class CocoKarpathy(Dataset):
    """Karpathy's test split, with its training and "restval" pictures for calibration."""

    tasks: ClassVar[tuple[str, ...]] = ("captioning", "retrieval")
    layout: ClassVar[str] = (
        f"FOLDER/{KARPATHY}   (or LAVIS's {LAVIS.format('test')})\n"
        "FOLDER/val2014/*.jpg\n"
        "for calibration, if wanted (without train2014/, from the unused part of val2014):\n"
        f"FOLDER/{LAVIS.format('train')}   (only beside LAVIS's test file)\n"
        "FOLDER/train2014/*.jpg\n"
        "from https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip and "
        "https://cocodataset.org/#download"
    )

    def recognizes(self, root: Path) -> bool:
        """Whether annotations and pictures are there; Karpathy's archive has other sets too."""
        return not self.lacking(root)

    def lacking(self, root: Path) -> list[str]:
        """Karpathy's file (or LAVIS's) or val2014."""
        return lacking(root, [[KARPATHY, LAVIS.format("test")]], FOLDERS[:1])

    def samples(self, task: str, root: Path) -> list[Any]:
        """One sample a picture, in the file's order, with all its references."""
        rows = _rows(root, "test", ("test",))
        if rows is None:
            rows = read_karpathy(root / KARPATHY, ("test",))
        return [row.sample(_folder(root, row) or root / _named_folder(row)) for row in rows]

    def calibration(self, task: str, root: Path, count: int, seed: int) -> list[Any] | None:
        """Pictures of the splits "train" and "restval"."""
        rows = _rows(root, "train", ("train", "restval"))
        folders = {name: find_folder(root, name) or root / name for name in FOLDERS}

        def place(row: Captioned) -> tuple[Path, str]:
            name = _named_folder(row)
            return folders.get(name, root / name), PurePosixPath(row.file).name

        drawn = None if rows is None else draw(rows, place, count, seed)
        return None if drawn is None else [row.sample(place(row)[0]) for row in drawn]


def _rows(root: Path, part: str, splits: tuple[str, ...]) -> Iterator[Captioned] | None:
    """The pictures of a part from Karpathy's file, else from LAVIS's; None without either."""
    if path := find_file(root, KARPATHY):
        return read_karpathy(path, splits)
    path = find_file(root, LAVIS.format(part))
    return read_lavis(path) if path else None


def _named_folder(row: Captioned) -> str:
    """val2014 of val2014/COCO_val2014_000000391895.jpg."""
    return PurePosixPath(row.file).parent.name or FOLDERS[0]


def _folder(root: Path, row: Captioned) -> Path | None:
    return find_folder(root, _named_folder(row))
