"""Parquet files, row by row: texts are read, pictures are referred to by file, group and row."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmq.contracts import ImageRef
from mmq.data.parquet_images import ParquetImage, open_parquet, parquet_errors
from mmq.data.text_images import is_encoded
from mmq.errors import InputError
from mmq_plugins.datasets.records import Record

BATCH = 1024  # rows of text in memory
PICTURES = 16  # rows, where pictures must be read to know which are missing


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is read: its leaf, and what its cells are.

    leaf: the dotted name of what is read, "" for nothing. kind: "text", "picture" or "pictures".
    content: the leaf with the pictures' bytes.
    """

    name: str
    leaf: str
    kind: str
    content: str = ""


class ParquetTable:
    """The shards of one table. InputError if their columns differ."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self.path, self.decimal_commas = paths, paths[0], False
        self.columns = columns_of(paths[0])
        for path in paths[1:]:
            if absent := set(self.columns) - set(columns_of(path)):
                raise InputError(
                    f"data: {path} has no column {min(absent)!r}, but {paths[0]} has; pass files "
                    f"of one data set"
                )

    def picture_columns(self) -> tuple[str, ...]:
        """The columns that hold pictures by their type."""
        file = open_parquet(self.path)
        kinds = [_column(file, name, encoded=False) for name in self.columns]
        return tuple(column.name for column in kinds if column.kind != "text")

    def records(
        self, columns: Collection[str], pictures: Collection[str] = ()
    ) -> Iterator[Record]:
        """Every row of every file."""
        for path in self.paths:
            yield from _records(path, columns, pictures)


def columns_of(path: Path) -> tuple[str, ...]:
    """The names of a file's columns; only its footer is read."""
    return tuple(open_parquet(path).schema_arrow.names)


def _records(path: Path, names: Collection[str], pictures: Collection[str]) -> Iterator[Record]:
    file = open_parquet(path)
    with parquet_errors("data", str(path)):
        kinds = [_column(file, name, name in pictures) for name in names]
    labels = {name: own for name, own in class_names(file).items() if name in names}
    number = 0
    for group in range(file.num_row_groups):
        for row, values in enumerate(_rows(file, path, group, kinds)):
            number += 1
            where = f"{path}, row {number}"
            cells = {
                c.name: values[c.name]
                if c.kind == "text"
                else _pictures(path, group, row, c, values[c.name], where)
                for c in kinds
            }
            for name, own in labels.items():
                cells[name] = _label(cells[name], own)
            yield Record(f"row {number} of {path.name}", cells)


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
    read = {column.leaf: column.name for column in columns if column.leaf}
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
            values = {} if batch is None else _plain(batch)
        for k in range(size):
            row = {name: column[k] for name, column in values.items()}
            row |= {name: None if start + k in gone else "" for name, gone in nulls.items()}
            yield {**dict.fromkeys(read.values()), **row}
        start += size


def _plain(batch: Any) -> dict[str, list[Any]]:
    return {name: batch.column(name).to_pylist() for name in batch.schema.names}


def _column(file: Any, name: str, encoded: bool) -> Column:
    """How a column is read, by its type. encoded: its texts may be pictures."""
    from pyarrow import types

    kind = file.schema_arrow.field(name).type
    leaves = [
        path
        for k in range(len(file.schema))
        if (path := file.schema.column(k).path) == name or path.startswith(f"{name}.")
    ]
    is_list = types.is_list(kind) or types.is_large_list(kind)
    element = kind.value_type if is_list else kind
    if types.is_struct(element):
        return _struct_column(name, element, leaves, is_list)
    if types.is_binary(element) or types.is_large_binary(element):
        return Column(name, name if is_list else "", "pictures" if is_list else "picture", name)
    if encoded and (types.is_string(kind) or types.is_large_string(kind)):
        first = _first(file, name)
        if isinstance(first, str) and is_encoded(first):
            return Column(name, "", "picture", name)
    return Column(name, name, "text")


def _struct_column(name: str, element: Any, leaves: Sequence[str], is_list: bool) -> Column:
    fields = [element.field(k).name for k in range(element.num_fields)]
    ends = {path.rpartition(".")[2]: path for path in leaves}
    if "bytes" in fields:
        from pyarrow import types

        # a column of nothing but null has no leaf that can be read alone
        paths = "path" in fields and not types.is_null(element.field("path").type)
        leaf = ends["path"] if paths else (ends["bytes"] if is_list else "")
        return Column(name, leaf, "pictures" if is_list else "picture", name)
    if is_list and "answer" in fields:
        return Column(name, ends["answer"], "text")
    return Column(name, name, "text")


def _first(file: Any, name: str) -> Any:
    """The first value of a column that is not null, among the first rows."""
    for batch in file.iter_batches(batch_size=1, columns=[name], use_threads=False):
        return batch.column(0)[0].as_py()
    return None


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
