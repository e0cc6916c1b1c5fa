"""CSV and TSV files as spreadsheets write them: any delimiter, byte order mark or code page."""

import csv
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mmq.data.text_images import (
    CELL_LIMIT,
    TextImage,
    decode_line,
    foreign_word,
    is_encoded,
    numbered_lines,
    open_text,
)
from mmq.errors import InputError
from mmq_plugins.datasets.records import Record

log = logging.getLogger(__name__)
DELIMITERS = (",", ";", "\t", "|")
BLANK = ' ",;|\t\r\n'  # what a line without a name consists of
_reported: set[Path] = set()


class CsvFile:
    """A text file with a header line; its delimiter is the most frequent one in the header."""

    def __init__(self, path: Path) -> None:
        self.path, self.is_text = path, True
        with open_text(path) as file:
            lines = _Lines(path, file)
            first = next((line for line in lines if line.strip(BLANK)), "")
            declared = first.strip().strip('"').lower()
            if declared.startswith("sep=") and len(declared) <= 5:  # written by Excel
                self.delimiter = declared[4:] or "\t"
                first = next(lines, "")
            else:
                self.delimiter = _delimiter(first, path)
            if not first.strip():
                raise InputError(f"data: {path} is empty; its first line should name the columns")
            header = next(self._rows(_chain(first, lines)))
            self.start = lines.end  # after the header
            self.first_number = lines.number + 1
        self.columns = column_names(header, path)
        self.decimal_commas = self.delimiter != ","

    def records(
        self, columns: Collection[str], pictures: Collection[str] = ()
    ) -> Iterator[Record]:
        """Every row that is not blank; InputError, with its line, for one that does not fit."""
        indices = {name: self.columns.index(name) for name in columns}
        encoded = {name for name in columns if name in pictures}
        with open_text(self.path) as file:
            file.seek(self.start)
            lines = _Lines(self.path, file, self.first_number)
            rows = self._rows(lines)
            while True:
                lines.mark()
                row = next(rows, None)
                if row is None:
                    break
                if any(cell.strip() for cell in row):
                    yield self._record(row, indices, encoded, lines)
            if lines.converted and self.path not in _reported:
                _reported.add(self.path)
                log.warning(
                    "data: %s is not UTF-8 (first in line %d); it is read as Windows-1252",
                    self.path, lines.converted,
                )  # fmt: skip

    def _rows(self, lines: Iterator[str]) -> Iterator[list[str]]:
        csv.field_size_limit(CELL_LIMIT)
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True, skipinitialspace=True)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                line = lines.first if isinstance(lines, _Lines) else 1
                raise InputError(
                    f"data: {self.path}: the row in line {line} is not valid CSV ({error}); check "
                    f'its quotes: "..." around a cell, "" for a quote inside'
                ) from error
            yield row

    def _record(
        self, row: list[str], indices: dict[str, int], encoded: set[str], lines: "_Lines"
    ) -> Record:
        extra = row[len(self.columns) :]
        if len(row) < len(self.columns) or any(cell.strip() for cell in extra):
            if len(self.columns) == 1:
                raise InputError(
                    f"data: {self.path}: the header has one cell ({self.columns[0]}), but line "
                    f"{lines.first} has {len(row)}; remove the lines above the columns' names"
                )
            raise InputError(
                f"data: {self.path}: line {lines.first} has {len(row)} cells, but the header has "
                f"{len(self.columns)} ({', '.join(self.columns)}); put quotes around a cell that "
                f"contains {self.delimiter!r} or a line break"
            )
        values: dict[str, Any] = {}
        place = f"line {lines.first}"
        for name, index in indices.items():
            cell = row[index].strip()
            if name in encoded and is_encoded(cell):
                where = f"{self.path}, {place} ({name})"
                values[name] = TextImage(self.path, lines.offset, self.delimiter, index, where)
            else:
                values[name] = cell
        return Record(place, values)


class _Lines(Iterator[str]):
    """Decoded lines, and where the record that is being read starts.

    UTF-8 unless a line is not: then that line and all others are Windows-1252. InputError if the
    file mixes the two.
    """

    def __init__(self, path: Path, file: BinaryIO, number: int = 1) -> None:
        self.path, self.lines = path, numbered_lines(file)
        self.before = number - 1
        self.number = self.first = number - 1  # last line read, and first of the record
        self.offset = self.end = file.tell()
        self.utf8 = self.converted = 0  # the first line with characters of either
        self.starting = True

    def mark(self) -> None:
        """The next line starts a record."""
        self.starting = True

    def __next__(self) -> str:
        number, offset, content = next(self.lines)
        self.number, self.end = self.before + number, offset + len(content)
        if self.starting:
            self.first, self.offset, self.starting = self.number, offset, False
        if b"\0" in content:
            raise InputError(
                f"data: {self.path}: line {self.number} contains NUL bytes; save the file as "
                f"UTF-8 text"
            )
        if not content.isascii():
            self._note_encoding(content)
        try:
            text = decode_line(content)
        except UnicodeDecodeError as error:
            raise InputError(
                f"data: {self.path}: line {self.number} is neither UTF-8 nor Windows-1252; save "
                f"the file as UTF-8"
            ) from error
        if self.converted and (word := foreign_word(text)):
            raise InputError(
                f"data: {self.path}: line {self.number} is not UTF-8, and as Windows-1252, it "
                f"reads {word!r}; save the file as UTF-8"
            )
        return text

    def _note_encoding(self, content: bytes) -> None:
        try:
            content.decode()
            self.utf8 = self.utf8 or self.number
        except UnicodeDecodeError:
            self.converted = self.converted or self.number
        if self.utf8 and self.converted:
            raise InputError(
                f"data: {self.path} mixes encodings: line {self.utf8} is UTF-8, line "
                f"{self.converted} is not; save the file as UTF-8"
            )


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _delimiter(header: str, path: Path) -> str:
    """The delimiter that the header has most often outside quotes."""
    plain = "".join(header.split('"')[::2])
    counts = {mark: plain.count(mark) for mark in DELIMITERS}
    best = max(DELIMITERS, key=lambda mark: counts[mark])
    if not counts[best]:
        return "\t" if path.suffix.lower() == ".tsv" else ","
    return best


def column_names(header: list[str], path: Path) -> tuple[str, ...]:
    """Stripped names; InputError for a name that appears twice."""
    while header and not header[-1].strip():
        header = header[:-1]
    names = [name.strip() or f"column {k}" for k, name in enumerate(header, 1)]
    for k, name in enumerate(names):
        if name in names[:k]:
            raise InputError(
                f"data: {path}: columns {names.index(name) + 1} and {k + 1} are both named "
                f"{name!r}; rename one of them"
            )
    return tuple(names)
