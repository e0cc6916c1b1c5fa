"""Data sets as the Hugging Face hub has them: parquet files, recognized by their columns."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from mmq.contracts import Dataset, Sample, Splits
from mmq.errors import InputError
from mmq_plugins.datasets.parquet_columns import columns_of
from mmq_plugins.datasets.parquet_files import ParquetTable
from mmq_plugins.datasets.records import Record, TableFile
from mmq_plugins.datasets.split_files import (
    SplitFile,
    by_split,
    parquet_files,
    pick,
    split_file,
    warn_of_missing_shards,
)
from mmq_plugins.datasets.table_fields import Fields
from mmq_plugins.datasets.table_samples import TableSamples


@dataclass(frozen=True)
class HubDataset(Dataset):
    """A data set of one parquet table; subclasses declare its columns.

    columns: that must all be there. marks: of which one must be. fields: the columns that are
    read, by field. order: splits to score, the first that is there. training: splits to calibrate
    on. joined: configurations are parts of one set. metric, rule: how its authors score.
    """

    columns: ClassVar[frozenset[str]]
    marks: ClassVar[frozenset[str]] = frozenset()
    fields: ClassVar[Fields]
    order: ClassVar[tuple[str, ...]] = ("validation", "test", "dev", "testdev")
    training: ClassVar[tuple[str, ...]] = ("train",)
    joined: ClassVar[bool] = False
    metric: ClassVar[str] = ""
    rule: ClassVar[str] = ""

    task: str = ""

    def for_task(self, task: str) -> Self:
        """The samples of another task."""
        return replace(self, task=task)

    def fits(self, path: Path) -> bool:
        """Whether a file is this set's, by its columns."""
        try:
            names = set(columns_of(path))
        except InputError:  # damaged: its name does not help either
            return False
        return self.columns <= names and (not self.marks or bool(self.marks & names))

    def recognizes(self, root: Path) -> bool:
        """Whether all parquet files have the set's columns; a folder above may have others."""
        files = _first_of_each(root)
        return bool(files) and all(self.fits(file.path) for file in files)

    def lacking(self, root: Path) -> list[str]:
        """A parquet file with the set's columns."""
        names = ", ".join(sorted(self.columns))
        return [] if self.recognizes(root) else [f"*.parquet with the columns {names}"]

    def splits(self, root: Path) -> Splits:
        """The split that is usually reported, and training, if it is there."""
        files = self.files(root)
        evaluation = pick(files, self.order)
        if evaluation is None and len(files) > 1:
            raise InputError(
                f"data: {str(root)!r} has the splits {', '.join(sorted(files))}; pass the file of "
                f"one, e.g. --data {min(min(paths) for paths in files.values())}"
            )
        evaluation = evaluation or next(iter(files))
        training = pick(files, self.training)
        return Splits(evaluation, training if training != evaluation else None)

    def read(self, root: Path, split: str) -> Iterator[Sample]:
        """One sample per row, or per picture for captions."""
        paths = self.files(root)[split]
        warn_of_missing_shards(paths)
        yield from self.samples(ParquetTable(paths))

    def samples(self, table: TableFile) -> Iterator[Sample]:
        """The samples of a split's table."""
        fields = {
            name: columns
            for name, columns in self.fields_in(table).items()
            if all(column in table.columns for column in columns)
        }
        task = self.task or self.tasks[0]
        metric = self.metric if task == "short-answer" else ""
        yield from TableSamples(Adapted(table, self), fields, task, metric, self.rule)

    def fields_in(self, table: TableFile) -> Fields:
        """The columns of each field; those that a copy lacks are left out."""
        return self.fields

    def adapt(self, record: Record) -> Record | None:
        """A row with the values that a user's own table would have; None to skip it."""
        return record

    def files(self, root: Path) -> dict[str, list[Path]]:
        """The set's files by split."""
        fitting = {file for file in _first_of_each(root) if self.fits(file.path)}
        kinds = {(file.config, file.split) for file in fitting}
        files = [file for file in _all(root) if (file.config, file.split) in kinds]
        return by_split(files, root, self.joined)


class Adapted:
    """A table whose rows a data set adapts."""

    def __init__(self, table: TableFile, dataset: HubDataset) -> None:
        self.table, self.dataset = table, dataset
        self.path, self.columns = table.path, table.columns
        self.decimal_commas = self.is_text = False

    def records(
        self, columns: Collection[str], pictures: Collection[str] = ()
    ) -> Iterator[Record]:
        """The rows that are not skipped."""
        for record in self.table.records(columns, pictures):
            if (adapted := self.dataset.adapt(record)) is not None:
                yield adapted


def with_values(record: Record, **values: object) -> Record:
    """The row with other values in some columns."""
    merged: Mapping[str, object] = {**record.values, **values}
    return Record(record.place, merged)


def _all(root: Path) -> list[SplitFile]:
    return [split_file(root, path) for path in parquet_files(root)]


def _first_of_each(root: Path) -> list[SplitFile]:
    """The first file of each configuration and split."""
    return list({(file.config, file.split): file for file in reversed(_all(root))}.values())
