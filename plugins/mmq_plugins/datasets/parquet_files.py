"""Parquet files, row by row: texts are read, pictures are referred to by file, group and row."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmq.contracts import ImageRef
from mmq.data.parquet_images import ParquetImage, open_parquet, parquet_errors
from mmq.errors import InputError
from mmq_plugins.datasets.parquet_columns import (
    Column,
    column_of,
    columns_of,
    inner_columns_of,
    inner_value,
    plain_values,
)
from mmq_plugins.datasets.records import Record

BATCH = 1024  # rows of text in memory
PICTURES = 16  # rows, where pictures must be read to know which are missing


class ParquetTable:
    """The shards of one table. InputError if their columns differ.

    inner: columns are also the values inside objects, such as query.en.
    """

    def __init__(self, paths: Sequence[Path], inner: bool = False) -> None:
        names = inner_columns_of if inner else columns_of
        self.paths, self.path = paths, paths[0]
        self.decimal_commas = self.is_text = False
        self.columns = names(paths[0])
        for path in paths[1:]:
            if absent := set(self.columns) - set(names(path)):
                raise InputError(
                    f"data: {path} has no column {min(absent)!r}, but {paths[0]} has; pass files "
                    f"of one data set"
                )

    def picture_columns(self) -> tuple[str, ...]:
        """The columns that hold pictures by their type."""
        file = open_parquet(self.path)
        kinds = [column_of(file, name, encoded=False) for name in self.columns]
        return tuple(column.name for column in kinds if column.kind != "text")

    def records(
        self, columns: Collection[str], pictures: Collection[str] = ()
    ) -> Iterator[Record]:
        """Every row of every file."""
        for path in self.paths:
            yield from _records(path, columns, pictures)


def _records(path: Path, names: Collection[str], pictures: Collection[str]) -> Iterator[Record]:
    file = open_parquet(path)
    with parquet_errors("data", str(path)):
        kinds = [column_of(file, name, name in pictures) for name in names]
    labels = {name: own for name, own in class_names(file).items() if name in names}
    number = 0
    for group in range(file.num_row_groups):
        for row, values in enumerate(_rows(file, path, group, kinds)):
            number += 1
            where = f"{path}, row {number}"
            cells = {
                c.name: (inner_value(values[c.top], c.keys) if c.keys else values[c.top])
                if c.kind == "text"
                else _pictures(path, group, row, c, values[c.top], where)
                for c in kinds
            }
            for name, own in labels.items():
                cells[name] = _label(cells[name], own)
            yield Record(f"row {number} of {path.name}", cells)


def values_of(path: Path, column: str) -> frozenset[str]:
    """The different texts of a column; read once until the file changes."""
    open_parquet(path)  # reports what cannot be read
    return _values_of(path, column, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _values_of(path: Path, column: str, modified: int) -> frozenset[str]:
    file = open_parquet(path)
    with parquet_errors("data", str(path)):
        cells = file.read(columns=[column], use_threads=False).column(0)
        return frozenset(str(value) for value in cells.unique().to_pylist())


def class_names(file: Any) -> dict[str, Sequence[str]]:
    """The names of the classes that columns number, as the package datasets declares them."""
    try:
        declared = json.loads((file.schema_arrow.metadata or {})[b"huggingface"])
        features = declared["info"]["features"]
        return {
            name: tuple(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (LookupError, TypeError, ValueError, AttributeError):  # not written by datasets
        return {}


def _label(value: Any, names: Sequence[str]) -> Any:
    """The name of a class; None for -1, which stands for an unknown one."""
    if not isinstance(value, int) or value >= len(names):
        return value
    return names[value] if value >= 0 else None


def _pictures(
    path: Path, group: int, row: int, column: Column, given: Any, where: str
) -> ImageRef | list[ImageRef] | None:
    """References to the pictures of a cell whose contents are not read."""
    name = f"{where} ({column.name})"
    if given is None:
        return None
    if column.kind == "picture":
        return ParquetImage(path, group, row, column.content, name)
    return [
        ParquetImage(path, group, row, column.content, name, index) for index in range(len(given))
    ]


def _rows(
    file: Any, path: Path, group: int, columns: Sequence[Column]
) -> Iterator[Mapping[str, Any]]:
    """The values of each row of a group; of pictures, whether they are there."""
    read = {column.leaf: column.top for column in columns if column.leaf}
    unread = [column for column in columns if not column.leaf]
    count = file.metadata.row_group(group).num_rows
    with parquet_errors("data", str(path)):
        nulls = {c.name: _null_rows(file, group, c) for c in unread}
        batches = file.iter_batches(
            batch_size=BATCH, row_groups=[group], columns=[*read], use_threads=False
        )
    start = 0
    while start < count:
        with parquet_errors("data", str(path)):
            batch = next(batches, None) if read else None
            size = min(BATCH, count - start) if batch is None else batch.num_rows
            if read and not size:
                raise ValueError(f"row group {group} has fewer than {count} rows")
            values = {} if batch is None else _values(batch)
        for k in range(size):
            row = {name: column[k] for name, column in values.items()}
            row |= {name: None if start + k in gone else "" for name, gone in nulls.items()}
            yield {**dict.fromkeys(read.values()), **row}
        start += size


def _values(batch: Any) -> dict[str, list[Any]]:
    return {name: plain_values(batch.column(name)) for name in batch.schema.names}


def _null_rows(file: Any, group: int, column: Column) -> set[int]:
    """The rows of a group without a picture: none by its statistics, or else by reading it."""
    metadata = file.metadata.row_group(group)
    chunks = [metadata.column(k) for k in range(metadata.num_columns)]
    for chunk in chunks:
        in_column = chunk.path_in_schema in (column.content, f"{column.content}.bytes")
        if in_column and chunk.statistics is not None and chunk.statistics.null_count == 0:
            return set()
    rows: set[int] = set()
    start = 0
    for batch in file.iter_batches(
        batch_size=PICTURES, row_groups=[group], columns=[column.content], use_threads=False
    ):
        cells = batch.column(0)
        rows |= {start + k for k in range(len(cells)) if not cells[k].is_valid}
        start += len(cells)
    return rows
