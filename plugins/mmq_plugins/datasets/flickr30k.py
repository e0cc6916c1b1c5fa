"""Flickr30k's 1,000 test pictures with five captions each, for retrieval."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from mmq.contracts import CaptionSample, Dataset, Splits
from mmq_plugins.datasets.caption_files import (
    Captioned,
    read_karpathy,
    read_lavis,
    read_names,
    read_tokens,
)
from mmq_plugins.datasets.files import find_file, find_folder, lacking

KARPATHY, LAVIS = "dataset_flickr30k.json", "flickr30k_{}.json"
TOKENS, NAMES = ("results_20130124.token", "results.token"), "{}.txt"
PICTURES = (
    "flickr30k-images",
    "flickr30k_images/flickr30k_images",
    "flickr30k_images",
    "images",
    "Images",
)


class Flickr30k(Dataset):
    """Karpathy's test split of Flickr30k, from any of the files in which it is distributed."""

    tasks: ClassVar[tuple[str, ...]] = ("retrieval",)
    layout: ClassVar[str] = (
        f"FOLDER/{KARPATHY}       (or LAVIS's {LAVIS.format('test')},\n"
        f"                                     or {TOKENS[0]} with test.txt)\n"
        "FOLDER/flickr30k-images/*.jpg        (or flickr30k_images/, images/)\n"
        "for calibration (optional):\n"
        f"FOLDER/{LAVIS.format('train')}          (or train.txt; {KARPATHY} has all splits)\n"
        "from https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip and "
        "https://shannon.cs.illinois.edu/DenotationGraph/"
    )

    def recognizes(self, root: Path) -> bool:
        """Whether annotations and pictures are there; Karpathy's archive has other sets too."""
        return not self.lacking(root)

    def lacking(self, root: Path) -> list[str]:
        """Captions of the test split, or pictures."""
        return lacking(root, [] if _rows(root, "test") else [[KARPATHY]], PICTURES)

    def splits(self, root: Path) -> Splits:
        """Test, and training if a file has it."""
        training = _rows(root, "train") and find_folder(root, *PICTURES)
        return Splits("test", "train" if training else None)

    def read(self, root: Path, split: str) -> Iterator[CaptionSample]:
        """One sample per picture, in the file's order, with all its captions."""
        folder = find_folder(root, *PICTURES) or root / PICTURES[0]
        rows = _rows(root, split)
        if rows is None:
            rows = read_karpathy(root / KARPATHY, (split,))  # raises, naming the file
        for row in rows:
            yield row.sample(folder)


def _rows(root: Path, split: str) -> Iterator[Captioned] | None:
    """The pictures of a split, read when iterated; None if no file lists them."""
    if path := find_file(root, KARPATHY):
        return read_karpathy(path, (split,))
    if path := find_file(root, LAVIS.format(split)):
        return read_lavis(path)
    tokens, names = find_file(root, *TOKENS), find_file(root, NAMES.format(split))
    return read_tokens(tokens, read_names(names)) if tokens and names else None
