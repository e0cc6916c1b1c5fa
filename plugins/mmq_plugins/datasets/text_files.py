"""Texts without pictures: a table's column of texts, or the passages of a plain text file."""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from mmq.data.text_images import decode_line, foreign_word, open_text
from mmq.errors import InputError
from mmq_plugins.datasets.parquet_files import ParquetTable
from mmq_plugins.datasets.records import TableFile, as_text
from mmq_plugins.datasets.table_fields import find_fields

log = logging.getLogger(__name__)
TEXT = ("text", "texts", "content", "passage", "sentence", "document", "article")  # usual names
PLAIN = ".txt"
LONGEST_NAME = 256  # characters of a file name; longer cells are texts


def texts_of(
    paths: Sequence[Path], open_table: Callable[[Sequence[Path]], TableFile]
) -> Iterator[str] | None:
    """The texts of one split's files; None if they have pictures, or no column of texts."""
    is_plain = paths[0].suffix.lower() == PLAIN
    try:
        table = open_table(paths)
    except InputError:
        if is_plain:  # its first line is no header
            return passages(paths[0])
        raise
    if is_plain and len(table.columns) < 2:
        return passages(paths[0])
    if _has_pictures(table):
        return None
    names = [c for name in TEXT for c in table.columns if c.strip().lower() == name]
    column = next(iter(names or (table.columns if len(table.columns) == 1 else ())), "")
    if not column:
        return passages(paths[0]) if is_plain else None
    log.warning("calibration: %s has no pictures; its column %s is read", table.path, column)
    return _column(table, column)


def _has_pictures(table: TableFile) -> bool:
    """Whether a column is called like pictures, or its first cell is or names one."""
    try:
        if "image" in find_fields(table.columns, {}, "captioning")[0]:
            return True
    except InputError:  # several columns may be the picture
        return True
    if isinstance(table, ParquetTable) and table.picture_columns():
        return True
    cells = [v for row in islice(table.records(table.columns), 1) for v in row.values.values()]
    names = [cell for cell in cells if isinstance(cell, str) and len(cell) < LONGEST_NAME]
    return any("\0" not in name and (table.path.parent / name).is_file() for name in names)


def _column(table: TableFile, column: str) -> Iterator[str]:
    """The texts of a column; empty cells are left out."""
    for record in table.records([column]):
        if text := as_text(record.values[column]):
            yield text


def passages(path: Path) -> Iterator[str]:
    """The paragraphs of a text file; its lines, if no blank line is between any of them."""
    by_line = not _has_paragraphs(path)
    lines: list[str] = []
    for line in _lines(path):
        if line:
            lines.append(line)
        if lines and (by_line or not line):
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _has_paragraphs(path: Path) -> bool:
    """Whether a blank line is between two lines of text."""
    started = blank = False
    for line in _lines(path):
        if line and blank:
            return True
        started = started or bool(line)
        blank = started and not line
    return False


def _lines(path: Path) -> Iterator[str]:
    """The stripped lines; InputError, with its number, for one that is not text."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            try:
                text = decode_line(line)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"data: {path}: line {number} is neither UTF-8 nor Windows-1252; save the "
                    f"file as UTF-8"
                ) from error
            if word := foreign_word(text) if text.encode() != line else "":
                raise InputError(
                    f"data: {path}: line {number} is not UTF-8, and as Windows-1252, it reads "
                    f"{word!r}; save the file as UTF-8"
                )
            if "\0" in text:
                raise InputError(f"data: {path}: line {number} contains NUL bytes; save the file "
                                 f"as UTF-8 text")  # fmt: skip
            yield text.strip()
