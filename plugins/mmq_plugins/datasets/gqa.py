"""GQA's balanced test-dev questions from the folder that the official downloads unpack to."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from mmq.contracts import Dataset, QuestionSample, Splits
from mmq_plugins.datasets.annotations import IDENTIFIER, check_text, keyed_entries
from mmq_plugins.datasets.files import find_file, find_folder, lacking, pictures_in

QUESTION = {"question": str, "imageId": IDENTIFIER, "answer": str}
TYPES = ("structural", "semantic")
PICTURES = ("images", "allImages/images", "Images")
FILES = {
    "testdev": "testdev_balanced_questions.json",
    "train": "train_balanced_questions.json",
}


class Gqa(Dataset):
    """Questions with one answer and, if the file has them, their types."""

    tasks: ClassVar[tuple[str, ...]] = ("gqa", "short-answer")
    layout: ClassVar[str] = (
        f"FOLDER/{FILES['testdev']}   (or in questions1.2/)\n"
        "FOLDER/images/n161313.jpg\n"
        "for calibration (optional):\n"
        f"FOLDER/{FILES['train']}     (or in questions1.2/)\n"
        "from https://cs.stanford.edu/people/dorarad/gqa/download.html"
    )

    def recognizes(self, root: Path) -> bool:
        """Whether the question file is there."""
        return find_file(root, FILES["testdev"]) is not None

    def lacking(self, root: Path) -> list[str]:
        """Questions or pictures."""
        return lacking(root, [[FILES["testdev"]]], PICTURES)

    def splits(self, root: Path) -> Splits:
        """Balanced test-dev, and balanced training; both have their pictures in one folder."""
        training = find_file(root, FILES["train"]) and find_folder(root, *PICTURES)
        return Splits("testdev", "train" if training else None)

    def read(self, root: Path, split: str) -> Iterator[QuestionSample]:
        """One sample per question, in the file's order."""
        path = find_file(root, FILES[split]) or root / FILES[split]
        folder = find_folder(root, *PICTURES) or root / PICTURES[0]
        pictures = pictures_in(folder, "{}.jpg".format)
        for key, row in keyed_entries(path, QUESTION):
            check_text(row["question"], path, f"the question of entry {key!r}")
            image_id = sys.intern(str(row["imageId"]))
            yield QuestionSample(
                key, image_id, pictures(image_id), row["question"], (row["answer"],), "",
                _types(row.get("types")),
            )  # fmt: skip


def _types(given: Any) -> tuple[tuple[str, str], ...]:
    """The types of a question that are reported, if the file has them."""
    given = given if isinstance(given, dict) else {}
    return tuple((name, given[name]) for name in TYPES if isinstance(given.get(name), str))
