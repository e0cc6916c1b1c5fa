"""The data sets that are read from the hub's parquet files, by their columns.

Sources: lmms-lab's copies on huggingface.co/lmms-lab, and the copies that each class names.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from mmq.contracts import ChoiceSample, QuestionSample, Sample, Splits
from mmq.errors import InputError
from mmq_plugins.datasets.cells import listed_options
from mmq_plugins.datasets.hub import HubDataset, with_values
from mmq_plugins.datasets.parquet_columns import columns_of
from mmq_plugins.datasets.parquet_files import ParquetTable, values_of
from mmq_plugins.datasets.records import Record, TableFile, as_text
from mmq_plugins.datasets.table_fields import Fields
from mmq_plugins.datasets.table_samples import TableSamples

QUESTION = {"image": ("image",), "question": ("question",)}
QUERY = {"image": ("image",), "question": ("query",), "answers": ("label",)}
HUMAN = "human_or_machine"  # a column of HuggingFaceM4/ChartQA
log = logging.getLogger(__name__)


def _tree(repository: str, example: str) -> str:
    return f"FOLDER/{example}\nfrom https://huggingface.co/datasets/{repository}"


class VqaV2Hub(HubDataset):
    """VQAv2 with ten answers per question."""

    tasks: ClassVar[tuple[str, ...]] = ("vqa", "short-answer")
    layout: ClassVar[str] = _tree("lmms-lab/VQAv2", "data/validation-*.parquet")
    columns: ClassVar[frozenset[str]] = frozenset(
        {"question_id", "image_id", "question", "answers", "image"}
    )
    marks: ClassVar[frozenset[str]] = frozenset({"multiple_choice_answer", "answer_type"})
    fields: ClassVar[Fields] = {
        **QUESTION, "answers": ("answers",), "id": ("question_id",), "image_id": ("image_id",),
        "type": ("answer_type",),
    }  # fmt: skip


class CocoHub(HubDataset):
    """COCO captions, five per picture; of the test splits, the answers are not public."""

    tasks: ClassVar[tuple[str, ...]] = ("captioning", "retrieval")
    layout: ClassVar[str] = _tree("lmms-lab/COCO-Caption2017", "data/val-*.parquet")
    columns: ClassVar[frozenset[str]] = frozenset({"question_id", "image", "answer"})
    marks: ClassVar[frozenset[str]] = frozenset({"coco_url", "file_name", "date_captured"})
    fields: ClassVar[Fields] = {
        "image": ("image",), "captions": ("answer",), "image_id": ("question_id",),
    }  # fmt: skip


@dataclass(frozen=True)
class Flickr30kHub(HubDataset):
    """Flickr30k; Karpathy's test split if the copy has a column `split`, as nlphuji's has.

    part: the value of that column; "" for all rows.
    """

    tasks: ClassVar[tuple[str, ...]] = ("retrieval", "captioning")
    layout: ClassVar[str] = _tree("nlphuji/flickr30k", "*.parquet") + " or lmms-lab/flickr30k"
    columns: ClassVar[frozenset[str]] = frozenset({"image", "caption", "img_id"})
    fields: ClassVar[Fields] = {
        "image": ("image",), "captions": ("caption",), "image_id": ("img_id",),
        "type": ("split",),
    }  # fmt: skip

    part: str = ""

    def splits(self, root: Path) -> Splits:
        """Test and training, by file names or by the column `split`."""
        files = self.files(root)
        if not self._has_column(files):
            return super().splits(root)
        (paths,) = files.values()
        parts = {part for path in paths for part in values_of(path, "split")}
        evaluation = next((name for name in ("test", "val") if name in parts), "test")
        return Splits(evaluation, "train" if "train" in parts else None)

    def read(self, root: Path, split: str) -> Iterator[Sample]:
        """One sample per picture, with all its captions."""
        files = self.files(root)
        if self._has_column(files):
            (paths,) = files.values()
            yield from replace(self, part=split).samples(ParquetTable(paths))
            return
        if len(files) == 1:
            log.warning(
                "data: this copy of Flickr30k has no column 'split': all its pictures are used, "
                "so recalls are not comparable with those on Karpathy's 1,000 test pictures"
            )
        yield from super().read(root, split)

    def adapt(self, record: Record) -> Record | None:
        """The row, unless it is of another part."""
        return record if self.part in ("", record.values.get("split")) else None

    def _has_column(self, files: Mapping[str, list[Path]]) -> bool:
        return len(files) == 1 and all("split" in columns_of(paths[0]) for paths in files.values())


class TextVqa(HubDataset):
    """TextVQA, scored like VQAv2."""

    tasks: ClassVar[tuple[str, ...]] = ("vqa", "short-answer")
    layout: ClassVar[str] = _tree("lmms-lab/textvqa", "data/validation-*.parquet")
    columns: ClassVar[frozenset[str]] = frozenset(
        {"question_id", "image_id", "question", "answers", "image"}
    )
    marks: ClassVar[frozenset[str]] = frozenset(
        {"image_classes", "set_name", "flickr_300k_url", "flickr_original_url", "ocr_tokens"}
    )
    fields: ClassVar[Fields] = {
        **QUESTION, "answers": ("answers",), "id": ("question_id",), "image_id": ("image_id",),
    }  # fmt: skip


class ChartQa(HubDataset):
    """ChartQA's human and generated questions, scored by relaxed accuracy."""

    tasks: ClassVar[tuple[str, ...]] = ("short-answer",)
    layout: ClassVar[str] = (
        _tree("lmms-lab/ChartQA", "data/test-*.parquet")
        + ", HuggingFaceM4/ChartQA or ahmed-masry/ChartQA"
    )
    columns: ClassVar[frozenset[str]] = frozenset({"image"})
    fields: ClassVar[Fields] = {
        **QUESTION, "answers": ("answer",), "type": ("type",),
    }  # fmt: skip
    order: ClassVar[tuple[str, ...]] = ("test", "validation")
    metric: ClassVar[str] = "relaxed"

    def fits(self, path: Path) -> bool:
        """A copy's columns; `type` must name the human and the generated questions."""
        names = set(ParquetTable([path]).columns) if super().fits(path) else set()
        if {"query", "label", HUMAN} <= names:
            return True
        if "type" not in names or not (
            {"question", "answer"} <= names or {"query", "label"} <= names
        ):
            return False
        first = next(ParquetTable([path]).records(["type"]), None)
        kind = as_text(first.values["type"]) if first else ""
        return kind.startswith(("human", "augmented"))

    def fields_in(self, table: TableFile) -> Fields:
        """The columns of the copy's fields."""
        if "query" not in table.columns:
            return self.fields
        return {**QUERY, "type": (HUMAN if HUMAN in table.columns else "type",)}


class DocVqa(HubDataset):
    """DocVQA, scored by ANLS; the answers of its test split are not public."""

    tasks: ClassVar[tuple[str, ...]] = ("short-answer",)
    layout: ClassVar[str] = _tree("lmms-lab/DocVQA", "DocVQA/validation-*.parquet")
    columns: ClassVar[frozenset[str]] = frozenset(
        {"questionId", "question", "answers", "image", "docId"}
    )
    fields: ClassVar[Fields] = {
        **QUESTION, "answers": ("answers",), "id": ("questionId",), "image_id": ("docId",),
    }  # fmt: skip
    metric: ClassVar[str] = "anls"


class InfographicVqa(DocVqa):
    """InfographicVQA, scored by ANLS; the answers of its test split are not public."""

    layout: ClassVar[str] = _tree("lmms-lab/DocVQA", "InfographicVQA/validation-*.parquet")
    columns: ClassVar[frozenset[str]] = frozenset(
        {"questionId", "question", "answers", "image", "operation/reasoning"}
    )
    fields: ClassVar[Fields] = {**QUESTION, "answers": ("answers",), "id": ("questionId",)}


class OcrBench(HubDataset):
    """OCRBench, scored by whether an output contains an answer."""

    tasks: ClassVar[tuple[str, ...]] = ("short-answer",)
    layout: ClassVar[str] = _tree("echo840/OCRBench", "data/test-*.parquet")
    columns: ClassVar[frozenset[str]] = frozenset(
        {"dataset", "question", "question_type", "answer", "image"}
    )
    fields: ClassVar[Fields] = {
        **QUESTION, "answers": ("answer",), "type": ("question_type",),
    }  # fmt: skip
    order: ClassVar[tuple[str, ...]] = ("test", "validation")
    metric: ClassVar[str] = "contains"


class Mmmu(HubDataset):
    """MMMU: one to seven pictures per question, with options or open."""

    tasks: ClassVar[tuple[str, ...]] = ("choice",)
    layout: ClassVar[str] = (
        _tree("MMMU/MMMU", "Accounting/validation-*.parquet") + " or lmms-lab/MMMU"
    )
    columns: ClassVar[frozenset[str]] = frozenset(
        {"id", "question", "options", "answer", "image_1", "question_type"}
    )
    fields: ClassVar[Fields] = {
        "question": ("question",), "options": ("options",), "answers": ("answer",),
        "id": ("id",), "type": ("question_type",),
    }  # fmt: skip
    training: ClassVar[tuple[str, ...]] = ("dev",)
    joined: ClassVar[bool] = True
    rule: ClassVar[str] = "mmmu"

    def fields_in(self, table: TableFile) -> Fields:
        """With all columns of pictures."""
        numbers = sorted(
            int(m[1]) for c in table.columns if (m := re.fullmatch(r"image_(\d+)", c))
        )
        return {"image": tuple(f"image_{number}" for number in numbers), **self.fields}


class MmBench(HubDataset):
    """MMBench: two to four options per question; the answers of test splits are not public."""

    tasks: ClassVar[tuple[str, ...]] = ("choice",)
    layout: ClassVar[str] = _tree("lmms-lab/MMBench", "en/dev-*.parquet")
    columns: ClassVar[frozenset[str]] = frozenset(
        {"index", "question", "A", "B", "answer", "image", "category"}
    )
    fields: ClassVar[Fields] = {
        **QUESTION, "answers": ("answer",), "id": ("index",), "hint": ("hint",),
    }  # fmt: skip
    order: ClassVar[tuple[str, ...]] = ("dev", "validation", "test")
    rule: ClassVar[str] = "mmbench"

    def fields_in(self, table: TableFile) -> Fields:
        """With all columns of options."""
        letters = tuple(letter for letter in "ABCDEFGH" if letter in table.columns)
        return {**self.fields, "options": letters}


class MmStar(HubDataset):
    """MMStar, whose questions contain their options."""

    tasks: ClassVar[tuple[str, ...]] = ("choice",)
    layout: ClassVar[str] = _tree("Lin-Chen/MMStar", "val-*.parquet") + " or mmstar.parquet"
    columns: ClassVar[frozenset[str]] = frozenset(
        {"index", "question", "image", "answer", "l2_category"}
    )
    fields: ClassVar[Fields] = {
        **QUESTION, "answers": ("answer",), "id": ("index",), "type": ("category",),
    }  # fmt: skip

    def fits(self, path: Path) -> bool:
        """MMStar's columns, but not MMBench's."""
        return super().fits(path) and "A" not in ParquetTable([path]).columns

    def samples(self, table: TableFile) -> Iterator[Sample]:
        """One sample per question, with the options that its text lists."""
        for sample in TableSamples(table, self.fields, "vqa"):
            assert isinstance(sample, QuestionSample)
            letter = sample.answers[0].strip().upper()[:1]
            options = listed_options(sample.question)
            if not "A" <= letter <= chr(ord("A") + len(options) - 1):
                raise InputError(
                    f"data: {table.path}: the answer {sample.answers[0]!r} of the sample "
                    f"{sample.id} is not one of its {len(options)} options"
                )
            yield ChoiceSample(
                sample.id, sample.image_id, sample.images, sample.question, (letter,),
                sample.answer_type, (), options, True, self.rule,
            )  # fmt: skip


class Pope(HubDataset):
    """POPE's questions about objects that are there, or are not."""

    tasks: ClassVar[tuple[str, ...]] = ("yes-no",)
    layout: ClassVar[str] = _tree("lmms-lab/POPE", "data/test-*.parquet")
    columns: ClassVar[frozenset[str]] = frozenset(
        {"id", "question", "answer", "image_source", "image", "category"}
    )
    fields: ClassVar[Fields] = {
        **QUESTION, "answers": ("answer",), "id": ("id",), "image_id": ("image_source",),
        "type": ("category",),
    }  # fmt: skip
    order: ClassVar[tuple[str, ...]] = ("test", "validation")


class Ai2d(HubDataset):
    """AI2D's diagrams; the answer is the number of the right option, from 0."""

    tasks: ClassVar[tuple[str, ...]] = ("choice",)
    layout: ClassVar[str] = _tree("lmms-lab/ai2d", "data/test-*.parquet")
    columns: ClassVar[frozenset[str]] = frozenset({"question", "options", "answer", "image"})
    fields: ClassVar[Fields] = {
        **QUESTION, "options": ("options",), "answers": ("answer",),
    }  # fmt: skip
    order: ClassVar[tuple[str, ...]] = ("test", "validation")

    def fits(self, path: Path) -> bool:
        """AI2D's columns alone, and a number as the first answer."""
        if not super().fits(path) or set(ParquetTable([path]).columns) - self.columns - {"id"}:
            return False
        first = next(ParquetTable([path]).records(["answer"]), None)
        return first is not None and as_text(first.values["answer"]).isdecimal()

    def adapt(self, record: Record) -> Record | None:
        """The row with the right option's letter."""
        answer = as_text(record.values["answer"])
        if not answer.isdecimal():
            raise InputError(f"data: {record.place}: the answer {answer!r} is not a number")
        return with_values(record, answer=chr(ord("A") + int(answer)))
