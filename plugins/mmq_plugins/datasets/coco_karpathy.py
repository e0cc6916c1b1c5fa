"""COCO by Karpathy's splits: the 5,000 test pictures that captioning papers report."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

from mmq.contracts import CaptionSample, Dataset, Splits
from mmq_plugins.datasets.caption_files import Captioned, read_karpathy, read_lavis
from mmq_plugins.datasets.files import find_file, find_folder, lacking

KARPATHY, LAVIS = "dataset_coco.json", "coco_karpathy_{}.json"
FOLDERS = ("val2014", "train2014")
SPLITS = {"test": ("test",), "train": ("train", "restval")}  # in Karpathy's words


class CocoKarpathy(Dataset):
    """Karpathy's test split, with its training and "restval" pictures for calibration."""

    tasks: ClassVar[tuple[str, ...]] = ("captioning", "retrieval")
    layout: ClassVar[str] = (
        f"FOLDER/{KARPATHY}   (or LAVIS's {LAVIS.format('test')})\n"
        "FOLDER/val2014/*.jpg\n"
        "for calibration (optional) (without train2014/, from the unused part of val2014):\n"
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

    def splits(self, root: Path) -> Splits:
        """Test, and training with "restval"."""
        there = find_file(root, KARPATHY) or find_file(root, LAVIS.format("train"))
        pictures = any(find_folder(root, name) for name in FOLDERS)
        return Splits("test", "train" if there and pictures else None)

    def read(self, root: Path, split: str) -> Iterator[CaptionSample]:
        """One sample per picture, in the file's order, with all its references."""
        folders: dict[str, Path] = {}
        for row in _rows(root, split):
            name = PurePosixPath(row.file).parent.name or FOLDERS[0]
            if name not in folders:
                folders[name] = find_folder(root, name) or root / name
            yield row.sample(folders[name])


def _rows(root: Path, split: str) -> Iterator[Captioned]:
    """The pictures of a split from LAVIS's file if only that is there, else from Karpathy's."""
    path, lavis = find_file(root, KARPATHY), find_file(root, LAVIS.format(split))
    if lavis and not path:
        return read_lavis(lavis)
    return read_karpathy(path or root / KARPATHY, SPLITS[split])
