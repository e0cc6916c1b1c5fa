"""GQA as the hub has it: questions and pictures in two configurations, joined on imageId."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from mmq.contracts import Dataset, ImageRef, QuestionSample, Splits
from mmq.errors import InputError
from mmq_plugins.datasets.parquet_columns import columns_of
from mmq_plugins.datasets.parquet_files import ParquetTable
from mmq_plugins.datasets.records import as_text
from mmq_plugins.datasets.split_files import (
    SplitFile,
    parquet_files,
    split_file,
    warn_of_missing_shards,
)

INSTRUCTIONS = {"id", "imageId", "question", "answer"}
IMAGES = {"id", "image"}
TYPES = ("structural", "semantic")
ORDER = ("testdev_balanced", "testdev", "testdev_all", "val_balanced", "val", "val_all")
TRAINING = ("train_balanced", "train", "train_all")
Parts = Mapping[str, tuple[list[Path], list[Path]]]  # by name: instructions, images


class GqaHub(Dataset):
    """GQA's questions with one answer and their types."""

    tasks: ClassVar[tuple[str, ...]] = ("gqa", "short-answer")
    layout: ClassVar[str] = (
        "FOLDER/testdev_balanced_instructions/testdev-*.parquet\n"
        "FOLDER/testdev_balanced_images/testdev-*.parquet\n"
        "for calibration (optional):\n"
        "FOLDER/train_balanced_instructions/*.parquet, FOLDER/train_balanced_images/*.parquet\n"
        "from https://huggingface.co/datasets/lmms-lab/GQA"
    )

    def recognizes(self, root: Path) -> bool:
        """Whether there are questions of GQA, with or without pictures."""
        parts = _parts(root).values()
        fitting = sum(len(texts) + len(images) for texts, images in parts)
        return any(texts for texts, _ in parts) and fitting == len(parquet_files(root))

    def lacking(self, root: Path) -> list[str]:
        """Questions, or their pictures."""
        parts = _parts(root)
        if not any(instructions for instructions, _ in parts.values()):
            return [f"*.parquet with the columns {', '.join(sorted(INSTRUCTIONS))}"]
        if not any(instructions and images for instructions, images in parts.values()):
            return ["*_images/*.parquet with the columns id, image"]
        return []

    def splits(self, root: Path) -> Splits:
        """Balanced test-dev and balanced training, or what is there of either."""
        complete = [name for name, (texts, images) in _parts(root).items() if texts and images]
        evaluation = next((name for name in ORDER if name in complete), complete[0])
        training = next((name for name in TRAINING if name in complete), None)
        return Splits(evaluation, training if training != evaluation else None)

    def read(self, root: Path, split: str) -> Iterator[QuestionSample]:
        """One sample per question. InputError for one whose picture is missing."""
        texts, files = _parts(root)[split]
        warn_of_missing_shards(texts)
        warn_of_missing_shards(files)
        images = _images(ParquetTable(files))
        table = ParquetTable(texts)
        columns = [name for name in (*INSTRUCTIONS, "types") if name in table.columns]
        for record in table.records(columns):
            image_id = as_text(record.values["imageId"])
            if image_id not in images:
                raise InputError(
                    f"data: {table.path}: {record.place} is about the picture {image_id}, which "
                    f"is not in {files[0].parent}; download all its files"
                )
            question, answer = (as_text(record.values[name]) for name in ("question", "answer"))
            if not question or not answer:
                raise InputError(
                    f"data: {table.path}: {record.place} has no question or no answer; choose a "
                    f"split with answers"
                )
            yield QuestionSample(
                as_text(record.values["id"]), image_id, (images[image_id],), question, (answer,),
                "", _types(record.values.get("types")),
            )  # fmt: skip


def _images(table: ParquetTable) -> dict[str, ImageRef]:
    images: dict[str, ImageRef] = {}
    places: dict[str, str] = {}
    for record in table.records(("id", "image")):
        key = as_text(record.values["id"])
        if key in images:
            raise InputError(
                f"data: the picture {key} is in {places[key]} and in {record.place} of "
                f"{table.path.parent}; keep one of them"
            )
        images[key], places[key] = record.values["image"], record.place
    return images


def _types(types: Any) -> tuple[tuple[str, str], ...]:
    types = types if isinstance(types, dict) else {}
    return tuple((name, types[name]) for name in TYPES if isinstance(types.get(name), str))


def _parts(root: Path) -> Parts:
    """The files with questions and with pictures, by configuration, e.g. testdev_balanced."""
    parts: dict[str, tuple[list[Path], list[Path]]] = {}
    for path in parquet_files(root):
        try:
            names = set(columns_of(path))
        except InputError:
            continue
        is_text = names >= INSTRUCTIONS
        if is_text or (names >= IMAGES and "question" not in names):
            pair = parts.setdefault(_name(split_file(root, path)), ([], []))
            pair[0 if is_text else 1].append(path)
    return parts


def _name(file: SplitFile) -> str:
    """The configuration's name without its kind, or else the split's."""
    text = file.config or file.path.stem.partition("-")[0]
    for word in ("instructions", "images", "questions"):
        text = text.replace(f"_{word}", "").replace(word, "")
    return text.strip("/_") or file.split
