"""The data of lmms-eval's tasks: parquet files as the Hugging Face hub has them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from mmq.contracts import Dataset, Splits
from mmq.errors import InputError
from mmq_plugins.lmms.benchmark import Benchmark, benchmark
from mmq_plugins.lmms.local_task import TRAINING, files_of, open_task
from mmq_plugins.lmms.samples import LmmsSample, TaskImage


@dataclass(frozen=True)
class Lmms(Dataset):
    """Rows that a task of lmms-eval reads; `name` is the task."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("lmms",)
    layout: ClassVar[str] = (
        "FOLDER/data/SPLIT-*.parquet\n"
        "with the split and the columns of the task's data set on the Hugging Face hub"
    )

    name: str = ""

    def for_task(self, task: str) -> Self:
        """The rows of a task such as lmms:chartqa."""
        return replace(self, name=task.partition(":")[2])

    @property
    def _benchmark(self) -> Benchmark:
        if not self.name:
            raise InputError("dataset: 'lmms' needs a task of lmms-eval, e.g. --task lmms:chartqa")
        return benchmark(self.name)

    def recognizes(self, root: Path) -> bool:
        """Whether the evaluated split of the task is there."""
        return bool(self.name) and not self.lacking(root)

    def lacking(self, root: Path) -> list[str]:
        """The parquet files of the task's split."""
        if not self.name:
            return ["*.parquet of a task of lmms-eval"]
        task = self._benchmark
        if files_of(root, task, task.evaluated_split):
            return []
        origin = f"https://huggingface.co/datasets/{task.config.get('dataset_path')}"
        return [f"{task.evaluated_split}-*.parquet of {origin}"]

    def splits(self, root: Path) -> Splits:
        """The split that lmms-eval scores, and training, if it is there and not scored."""
        task = self._benchmark
        training = task.evaluated_split != TRAINING and bool(files_of(root, task, TRAINING))
        return Splits(task.evaluated_split, TRAINING if training else None)

    def read(self, root: Path, split: str) -> Iterator[LmmsSample]:
        """One sample per row; its id is lmms-eval's doc id. Pictures are not decoded."""
        task = open_task(root, self.name, split)
        for number, (row, count) in enumerate(task.rows()):
            if not count:
                raise InputError(
                    f"data: row {number} of {split} has no picture; choose a task whose rows all "
                    f"have pictures"
                )
            images = tuple(
                TaskImage(root, self.name, split, number, k, f"{root}, {split} row {number}")
                for k in range(count)
            )
            key = str(number)
            yield LmmsSample(
                key, key, images, task.prompt(row), task.answers(row), "", (), row
            )  # fmt: skip
