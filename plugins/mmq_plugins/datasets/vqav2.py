"""VQAv2 from the folder that the official downloads unpack to."""

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar

from mmq.contracts import QuestionSample
from mmq.contracts.dataset import Dataset
from mmq.data.images import inside
from mmq.errors import InputError
from mmq_plugins.datasets.annotations import (
    IDENTIFIER,
    Unique,
    check_text,
    entries,
    shortened,
    writable,
)
from mmq_plugins.datasets.files import draw, find_file, find_folder, lacking

Answers = dict[str, tuple[tuple[str, ...], str]]  # by question: the annotators', and their type
QUESTION = {"question_id": IDENTIFIER, "image_id": IDENTIFIER, "question": str}
ANNOTATION = {"question_id": IDENTIFIER, "answers": list, "answer_type": str}


class VqaV2(Dataset):
    """Questions and answers of val2014."""

    tasks: ClassVar[tuple[str, ...]] = ("vqa",)
    layout: ClassVar[str] = (
        "FOLDER/v2_OpenEnded_mscoco_val2014_questions.json\n"
        "FOLDER/v2_mscoco_val2014_annotations.json\n"
        "FOLDER/val2014/COCO_val2014_000000000042.jpg\n"
        "for calibration, if wanted:\n"
        "FOLDER/v2_OpenEnded_mscoco_train2014_questions.json\n"
        "FOLDER/v2_mscoco_train2014_annotations.json\n"
        "FOLDER/train2014/COCO_train2014_000000000009.jpg\n"
        "from https://visualqa.org/download.html and https://cocodataset.org/#download"
    )

    def recognizes(self, root: Path) -> bool:
        """Whether the question or the annotation file is there."""
        return any(find_file(root, name) for name in _names("val2014"))

    def lacking(self, root: Path) -> list[str]:
        """Questions, annotations or pictures of val2014."""
        return lacking(root, [[name] for name in _names("val2014")], ["val2014"])

    def samples(self, task: str, root: Path) -> list[Any]:
        """One sample a question, in the question file's order."""
        questions, annotations = (find_file(root, n) or root / n for n in _names("val2014"))
        answers = _answers(annotations)
        pictures = _Pictures(find_folder(root, "val2014") or root / "val2014", "val2014")
        samples = []
        for index, row in _questions(questions):
            if str(row["question_id"]) not in answers:
                raise _unanswered(questions, index, row, annotations)
            samples.append(_sample(questions, index, row, pictures, answers))
        return samples

    def calibration(self, task: str, root: Path, count: int, seed: int) -> list[Any] | None:
        """Questions of train2014."""
        questions, annotations = (find_file(root, name) for name in _names("train2014"))
        folder = find_folder(root, "train2014")
        if not (questions and annotations and folder):
            return None
        drawn = draw(
            _questions(questions),
            lambda row: (folder, _file_name(str(row[1]["image_id"]), "train2014")),
            count,
            seed,
        )
        if drawn is None:
            return None
        answers = _answers(annotations, {str(row["question_id"]) for _, row in drawn})
        for index, row in drawn:
            if str(row["question_id"]) not in answers:
                raise _unanswered(questions, index, row, annotations)
        pictures = _Pictures(folder, "train2014")
        return [_sample(questions, index, row, pictures, answers) for index, row in drawn]


def _names(split: str) -> tuple[str, str]:
    """Question and annotation file of a split."""
    return f"v2_OpenEnded_mscoco_{split}_questions.json", f"v2_mscoco_{split}_annotations.json"


def _questions(path: Path) -> Iterator[tuple[int, Any]]:
    return entries(path, "questions", QUESTION, [Unique(("question_id",), "question")])


def _answers(path: Path, only: Collection[str] | None = None) -> Answers:
    """The annotators' answers by question, with `only` of these."""
    answers: Answers = {}
    if only is not None and not only:
        return answers
    unique = [Unique(("question_id",), "answers")]
    for index, row in entries(path, "annotations", ANNOTATION, unique):
        try:  # two million answers are a few thousand texts
            texts = tuple([sys.intern(answer["answer"]) for answer in row["answers"]])
        except (KeyError, TypeError):
            texts = ()
        if not texts or not all(text.isascii() or writable(text) for text in texts):
            raise InputError(
                f"annotations: {path}: annotations[{index}] has an answer without text: "
                f"{shortened(row['answers'])}"
            )
        key = str(row["question_id"])
        if only is None or key in only:
            answers[key] = texts, sys.intern(row["answer_type"])
    return answers


def _unanswered(questions: Path, index: int, row: Any, annotations: Path) -> InputError:
    return InputError(
        f"annotations: {questions}: questions[{index}] has the id {row['question_id']}, "
        f"for which {annotations.name} has no answers"
    )


def _sample(
    path: Path, index: int, row: Any, pictures: "_Pictures", answers: Answers
) -> QuestionSample:
    key, image_id = str(row["question_id"]), sys.intern(str(row["image_id"]))
    check_text(row["question"], path, f"the question of questions[{index}]")
    return QuestionSample(key, image_id, pictures[image_id], row["question"], *answers[key])


class _Pictures(dict[str, Path]):
    """A picture's path by its id, one for all its questions."""

    def __init__(self, folder: Path, split: str) -> None:
        super().__init__()
        self.folder, self.split = folder, split

    def __missing__(self, image_id: str) -> Path:
        path = self[image_id] = inside(self.folder, _file_name(image_id, self.split))
        return path


def _file_name(image_id: str, split: str) -> str:
    """COCO_val2014_000000000042.jpg for 42; an id that is no number is a file name."""
    if not (image_id.isascii() and image_id.isdecimal()):
        return image_id
    return f"COCO_{split}_{image_id.lstrip('0').zfill(12)}.jpg"
