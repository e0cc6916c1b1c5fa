"""VQAv2 from the folder that the official downloads unpack to."""

import sys
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mmq.contracts import Dataset, QuestionSample, Sample, Splits
from mmq.contracts.dataset import Choose
from mmq.errors import InputError
from mmq_plugins.datasets.annotations import (
    IDENTIFIER,
    Unique,
    check_text,
    entries,
    shortened,
    writable,
)
from mmq_plugins.datasets.files import find_file, find_folder, lacking, pictures_in

Answers = dict[str, tuple[tuple[str, ...], str]]  # by question: the annotators', and their type
QUESTION = {"question_id": IDENTIFIER, "image_id": IDENTIFIER, "question": str}
ANNOTATION = {"question_id": IDENTIFIER, "answers": list, "answer_type": str}


class VqaV2(Dataset):
    """Questions and answers of val2014."""

    tasks: ClassVar[tuple[str, ...]] = ("vqa", "short-answer")
    layout: ClassVar[str] = (
        "FOLDER/v2_OpenEnded_mscoco_val2014_questions.json\n"
        "FOLDER/v2_mscoco_val2014_annotations.json\n"
        "FOLDER/val2014/COCO_val2014_000000000042.jpg\n"
        "for calibration (optional):\n"
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

    def splits(self, root: Path) -> Splits:
        """val2014, and train2014 if questions, answers and pictures of it are there."""
        texts = all(find_file(root, name) for name in _names("train2014"))
        there = texts and find_folder(root, "train2014")
        return Splits("val2014", "train2014" if there else None)

    def read(self, root: Path, split: str) -> Iterator[QuestionSample]:
        """One sample per question, in the question file's order."""
        questions, annotations = _paths(root, split)
        yield from _answered(_questions(root, split), _answers(annotations), questions)

    def select(self, root: Path, split: str, choose: Choose) -> list[Sample]:
        """The same, without the answers to other questions in memory."""
        if not (selected := choose(_questions(root, split))):
            return []
        questions, annotations = _paths(root, split)
        answers = _answers(annotations, {sample.id for sample in selected})
        return [*_answered(selected, answers, questions)]


def _names(split: str) -> tuple[str, str]:
    """Question and annotation file of a split."""
    return f"v2_OpenEnded_mscoco_{split}_questions.json", f"v2_mscoco_{split}_annotations.json"


def _paths(root: Path, split: str) -> tuple[Path, Path]:
    questions, annotations = (find_file(root, name) or root / name for name in _names(split))
    return questions, annotations


def _questions(root: Path, split: str) -> Iterator[QuestionSample]:
    """The questions of a split, without answers."""
    path, _ = _paths(root, split)
    folder = find_folder(root, split) or root / split
    pictures = pictures_in(folder, partial(_file_name, split))
    unique = [Unique(("question_id",), "question")]
    for index, row in entries(path, "questions", QUESTION, unique):
        check_text(row["question"], path, f"the question of questions[{index}]")
        key, image_id = str(row["question_id"]), sys.intern(str(row["image_id"]))
        yield QuestionSample(key, image_id, pictures(image_id), row["question"], (), "")


def _answers(path: Path, only: Collection[str] | None = None) -> Answers:
    """The annotators' answers by question, with `only` of these."""
    answers: Answers = {}
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


def _answered(questions: Iterable[Any], answers: Answers, path: Path) -> Iterator[QuestionSample]:
    """The questions with their answers; InputError for one that has none."""
    for sample in questions:
        if sample.id not in answers:
            raise InputError(
                f"annotations: {path}: the question with the id {sample.id} has no answers in the "
                f"annotation file; add them or leave the question out"
            )
        texts, kind = answers[sample.id]
        yield QuestionSample(
            sample.id, sample.image_id, sample.images, sample.question, texts, kind
        )


def _file_name(split: str, image_id: str) -> str:
    """COCO_val2014_000000000042.jpg for 42; an id that is not a number is a file name."""
    if not (image_id.isascii() and image_id.isdecimal()):
        return image_id
    return f"COCO_{split}_{image_id.lstrip('0').zfill(12)}.jpg"
