"""GQA's balanced test-dev questions from the folder that the official downloads unpack to."""

import sys
from pathlib import Path
from typing import Any, ClassVar

from mmq.contracts import QuestionSample
from mmq.contracts.dataset import Dataset
from mmq.data.images import inside
from mmq_plugins.datasets.annotations import IDENTIFIER, check_text, keyed_entries
from mmq_plugins.datasets.files import draw, find_file, find_folder, lacking

QUESTION = {"question": str, "imageId": IDENTIFIER, "answer": str}
TYPES = ("structural", "semantic")
PICTURES = ("images", "allImages/images", "Images")
TEST, TRAINING = "testdev_balanced_questions.json", "train_balanced_questions.json"


class Gqa(Dataset):
    """Questions with one answer and, where the file tells them, their types."""

    tasks: ClassVar[tuple[str, ...]] = ("gqa",)
    layout: ClassVar[str] = (
        f"FOLDER/{TEST}   (or in questions1.2/)\n"
        "FOLDER/images/n161313.jpg\n"
        "for calibration, if wanted:\n"
        f"FOLDER/{TRAINING}     (or in questions1.2/)\n"
        "from https://cs.stanford.edu/people/dorarad/gqa/download.html"
    )

    def recognizes(self, root: Path) -> bool:
        """Whether the question file is there."""
        return find_file(root, TEST) is not None

    def lacking(self, root: Path) -> list[str]:
        """Questions or pictures."""
        return lacking(root, [[TEST]], PICTURES)

    def samples(self, task: str, root: Path) -> list[Any]:
        """One sample a question, in the file's order."""
        path = find_file(root, TEST) or root / TEST
        folder = _pictures(root) or root / "images"
        return [_sample(path, key, row, folder) for key, row in keyed_entries(path, QUESTION)]

    def calibration(self, task: str, root: Path, count: int, seed: int) -> list[Any] | None:
        """Questions of the balanced training split."""
        path, folder = find_file(root, TRAINING), _pictures(root)
        if not (path and folder):
            return None
        rows = keyed_entries(path, QUESTION)
        drawn = draw(rows, lambda row: (folder, f"{row[1]['imageId']}.jpg"), count, seed)
        return None if drawn is None else [_sample(path, key, row, folder) for key, row in drawn]


def _pictures(root: Path) -> Path | None:
    return find_folder(root, *PICTURES)


def _sample(path: Path, key: str, row: Any, folder: Path) -> QuestionSample:
    check_text(row["question"], path, f"the question of entry {key!r}")
    image_id = sys.intern(str(row["imageId"]))
    given = row["types"] if isinstance(row.get("types"), dict) else {}
    types = tuple((name, given[name]) for name in TYPES if isinstance(given.get(name), str))
    image = inside(folder, f"{image_id}.jpg")
    return QuestionSample(key, image_id, image, row["question"], (row["answer"],), "", types)
