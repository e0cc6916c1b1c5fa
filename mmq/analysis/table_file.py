"""Tables in CSV or JSON files: rows of named cells with the lines they start in."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmq.errors import InputError
from mmq.system.regular_file import read_text
from mmq.system.strict_json import JsonError, decode, line_and_column

DEPTH = 10  # of objects within a row


def read_table(path: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers and rows; InputError for a duplicate column or key.

    A row is a mapping; any other value is returned unchanged. Cells of CSV beyond the head have
    the key None.
    """
    text = read_text(path, "results")
    if path.suffix.lower() in (".json", ".jsonl") or text.lstrip()[:1] in ("[", "{"):
        return _json_rows(path, text)
    return _csv_rows(path, text)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or []]
        for name, count in Counter(names).items():
            if name and count > 1:
                places = [str(k) for k, other in enumerate(names, start=1) if other == name]
                raise InputError(
                    f"{path}: the column {name!r} is duplicated, as columns "
                    f"{' and '.join(places)}; remove or rename one"
                )
        reader.fieldnames = names
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num} is not valid CSV: {error}") from error


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Rows of a JSON list, or of a file with one object per line, and the lines they start in."""
    place = 0
    space = re.compile(r"[\s,]*")
    listed = text.lstrip().startswith("[")
    if listed:
        place = text.index("[") + 1
    line, counted = 1, 0
    while True:
        match = space.match(text, place)
        place = match.end() if match else place
        if place >= len(text) or (listed and text[place] == "]"):
            return
        line, counted = line + text.count("\n", counted, place), place
        try:
            row, place = decode(text, place)
        except JsonError as error:
            at = " and ".join(line_and_column(text, position) for position in error.at)
            line = text.count("\n", 0, error.at[0]) + 1
            raise InputError(
                f"{path}: line {line} is not valid JSON: {error.reason} ({at})"
            ) from error
        if not listed and _by_column(row):
            raise InputError(f'{path}: is not a list of rows like [{{"vit_bits": 4, ...}}, ...]')
        yield line, _flat(row, f"{path}: line {line}") if isinstance(row, dict) else row


def _by_column(row: Any) -> bool:
    """Whether this is a complete table: one mapping of row numbers per column."""
    cells = list(row.values()) if isinstance(row, dict) else []
    return bool(cells) and all(isinstance(v, dict) and all(map(str.isdecimal, v)) for v in cells)


def _flat(row: Mapping[str, Any], where: str, depth: int = 0) -> dict[str, Any]:
    """Nested objects with dotted names: {"bits": {"vit": 4}} -> {"bits.vit": 4}."""
    if depth > DEPTH:
        raise InputError(f"{where}: objects are nested deeper than {DEPTH} levels")
    flat: dict[str, Any] = {}
    for name, value in row.items():
        inner = _flat(value, where, depth + 1) if isinstance(value, dict) else {}
        cells = {f"{name}.{key}": cell for key, cell in inner.items()} or {name: value}
        if twice := cells.keys() & flat.keys():
            raise InputError(
                f"{where}: {min(twice)!r} is duplicated, once with a dot and once in an object; "
                f"remove one"
            )
        flat |= cells
    return flat
