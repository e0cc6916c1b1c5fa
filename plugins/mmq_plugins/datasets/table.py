"""A user's own table: CSV, JSON, parquet or Excel with pictures, and Hugging Face imagefolders."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar, Self

from mmq.contracts import Dataset, Sample, Splits
from mmq.errors import InputError
from mmq_plugins.datasets.csv_files import CsvFile
from mmq_plugins.datasets.json_files import JsonLinesFile, json_table
from mmq_plugins.datasets.parquet_files import ParquetTable
from mmq_plugins.datasets.records import TableFile
from mmq_plugins.datasets.split_files import (
    WORDS,
    SplitFile,
    by_split,
    list_files,
    pick,
    split_file,
    warn_of_missing_shards,
)
from mmq_plugins.datasets.table_fields import Fields, find_fields, misfit, needed, parse_fields
from mmq_plugins.datasets.table_pictures import PictureFolder
from mmq_plugins.datasets.table_samples import TableSamples
from mmq_plugins.datasets.table_splits import (
    TRAIN,
    PartOfTable,
    rows_by_split,
    split_column,
)
from mmq_plugins.datasets.text_files import texts_of
from mmq_plugins.datasets.xlsx_files import XlsxFile

log = logging.getLogger(__name__)
READERS: dict[str, Callable[[Path], TableFile]] = {
    ".csv": CsvFile,
    ".tsv": CsvFile,
    ".txt": CsvFile,
    ".jsonl": JsonLinesFile,
    ".ndjson": JsonLinesFile,
    ".json": json_table,
    ".xlsx": XlsxFile,
    ".xlsm": XlsxFile,
    ".parquet": lambda path: ParquetTable([path], inner=True),
}
IN_FOLDERS = (".csv", ".tsv", ".jsonl", ".ndjson", ".xlsx", ".parquet")
OTHER_SHEETS = (".xls", ".ods", ".numbers")
METADATA = "metadata"  # the table of an imagefolder
FOLDER_DEPTH = 1
_reported: set[str] = set()


def _report(line: str) -> None:
    """Warn once per process."""
    if line not in _reported:
        _reported.add(line)
        log.warning("%s", line)


@dataclass(frozen=True)
class Table(Dataset):
    """A table with one picture per row; its columns are guessed, or named by --fields."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = (
        "captioning", "choice", "retrieval", "short-answer", "vqa", "yes-no",
    )  # fmt: skip
    is_fallback: ClassVar[bool] = True
    layout: ClassVar[str] = (
        "FILE.csv (or .tsv, .jsonl, .json, .parquet, .xlsx), one row per question or picture,\n"
        "  with columns such as image, question, answer, or named by --fields\n"
        "FOLDER/metadata.csv (or .jsonl, .parquet) with a column file_name, beside the pictures\n"
        "FOLDER/train.csv, FOLDER/test.csv: splits, also in folders of these names"
    )

    task: str = ""
    fields: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def for_task(self, task: str) -> Self:
        """The samples of another task."""
        return replace(self, task=task)

    def with_fields(self, text: str) -> Self:
        """The table with these columns, e.g. "image=photo,answers=label"."""
        return replace(self, fields=tuple(parse_fields(text).items()))

    def recognizes(self, root: Path) -> bool:
        """Whether this is a table, or a folder with one."""
        if root.is_file():
            return root.suffix.lower() in (*READERS, *OTHER_SHEETS)
        return bool(_tables(root))

    def lacking(self, root: Path) -> list[str]:
        """The table."""
        return [] if self.recognizes(root) else ["a table (.csv, .tsv, .jsonl, .parquet, .xlsx)"]

    def splits(self, root: Path) -> Splits:
        """The folder's test or validation split, and training, if any; or the whole file.

        A table of its own may have the splits of its rows: in a column, or as pictures' folders.
        """
        files = _files(root)
        if column := self._split_column(files):
            rows = rows_by_split(open_table(*files.values()), column)
            return Splits(pick(rows) or TRAIN, TRAIN)
        if root.is_file():
            return Splits(root.name)
        evaluation = pick(files) or next(name for name in files)
        training = TRAIN if TRAIN in files and evaluation != TRAIN else None
        return Splits(evaluation, training)

    def texts(self, root: Path) -> Iterator[str] | None:
        """The column of texts of a table without pictures, or the passages of a .txt file."""
        files = _files(root)
        splits = Splits(root.name) if root.is_file() else self.splits(root)
        paths = files.get(splits.calibration or splits.evaluation) or next(iter(files.values()))
        return texts_of(paths, open_table)

    def read(self, root: Path, split: str) -> Iterator[Sample]:
        """One sample per row, or per picture for captions."""
        files = _files(root)
        column = self._split_column(files)
        (paths,) = files.values() if column else (files[split],)
        warn_of_missing_shards(paths)
        table = open_table(paths)
        fields, guessed = self._fields(table)
        if any(name not in fields for name in needed(self._task)):
            raise _misfit(table, self._task, fields)
        if guessed:
            text = ",".join(f"{name}={'+'.join(fields[name])}" for name in guessed)
            _report(f"data: {table.path}: guessed {text}; --fields changes it")
        if column:
            rows = rows_by_split(table, column)
            counts = ", ".join(f"{name} {count}" for name, count in rows.items())
            evaluation = pick(rows) or TRAIN
            _report(
                f"data: {table.path}: {column} names the splits {counts}; the rows of "
                f"{evaluation} are scored, those of train may calibrate"
            )
            table = PartOfTable(table, column, split)
        yield from TableSamples(table, fields, self._task, own=True)

    @property
    def _task(self) -> str:
        return self.task or "vqa"

    def _fields(self, table: TableFile) -> tuple[dict[str, tuple[str, ...]], list[str]]:
        """The columns of each field, and the names of the fields that were guessed."""
        fields, guessed = find_fields(table.columns, dict(self.fields), self._task)
        if "image" not in fields and isinstance(table, ParquetTable):
            cells = table.picture_columns()
            if len(cells) == 1:  # whatever its name is
                fields["image"] = cells
                guessed.insert(0, "image")
        return fields, guessed

    def _split_column(self, files: Mapping[str, Sequence[Path]]) -> str:
        """The column that names the splits of the only table's rows; "" without one."""
        if len(files) != 1:
            return ""
        try:
            table = open_table(*files.values())
            return split_column(table, self._fields(table)[0].get("image", ()))
        except InputError:  # which reading the samples reports
            return ""


def _misfit(table: TableFile, task: str, fields: Fields) -> InputError:
    """The error for a table without a needed column, with its first row."""
    record = next(islice(table.records(table.columns, table.columns), 1), None)
    row = record.values if record else {}
    folder = PictureFolder(table.path.parent)
    pictures = [name for name, value in row.items() if value in folder]
    headless = any(name in folder for name in table.columns)
    return misfit(table.path, task, table.columns, fields, row, pictures, headless)


def open_table(paths: Sequence[Path]) -> TableFile:
    """The table in a file, or in the parquet files of one split."""
    suffix = paths[0].suffix.lower()
    if suffix == ".parquet":
        return ParquetTable(paths, inner=True)
    if len(paths) > 1:
        raise InputError(
            f"data: {paths[0].parent} has several tables: "
            f"{', '.join(path.name for path in paths)}; pass one of them, e.g. --data {paths[0]}"
        )
    if suffix in OTHER_SHEETS:
        raise InputError(
            f"data: {paths[0]} is not read directly; save the sheet as CSV (UTF-8) or .xlsx"
        )
    return READERS[suffix](paths[0])


def _tables(root: Path) -> list[SplitFile]:
    """The tables of a folder: metadata of an imagefolder, or else the files at the top."""
    files = [split_file(root, path) for path in list_files(root, IN_FOLDERS, FOLDER_DEPTH, WORDS)]
    metadata = [file for file in files if file.path.stem == METADATA]
    if metadata:
        return metadata
    tops = [file for file in files if file.path.parent in (root, root / "data")]
    return tops or [file for file in files if file.path.suffix.lower() == ".parquet"]


def _files(root: Path) -> dict[str, list[Path]]:
    """The files of each split; a file of one's own by its name."""
    return {root.name: [root]} if root.is_file() else _split_tables(root)


def _split_tables(root: Path) -> dict[str, list[Path]]:
    """The files of each split; InputError if there are several and none is called a split."""
    splits = by_split(_tables(root), root, joined=False)
    if not splits:
        raise InputError(f"data: {str(root)!r} has no table")
    if len(splits) > 1 and pick(splits, ("test", "validation", "testdev", "dev", "train")) is None:
        paths = [path for paths in splits.values() for path in paths]
        names = ", ".join(path.name for path in paths)
        raise InputError(
            f"data: {str(root)!r} has several tables: {names}; pass one of them, e.g. "
            f"--data {paths[0]}"
        )
    return splits
