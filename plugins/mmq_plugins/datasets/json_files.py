"""JSON Lines files, and JSON files with a list of objects."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mmq.contracts import BytesImage, ImageRef
from mmq.data.json_stream import JsonStream, json_stream
from mmq.data.text_images import (
    TextImage,
    decode_base64,
    is_encoded,
    json_value,
    numbered_lines,
    open_text,
)
from mmq.errors import InputError
from mmq.system.strict_json import JsonError, decode
from mmq_plugins.datasets.records import Record

NESTED = 3  # levels of objects in objects that are columns
LOOKED_AT = 100  # rows whose keys are the columns
ROLE = "data"
Picture = Callable[[str, int], ImageRef]  # from its text, and its place in a list or -1


class JsonLinesFile:
    """One JSON object per line; its columns are the keys of the first rows."""

    def __init__(self, path: Path) -> None:
        self.path, self.decimal_commas = path, False
        self.columns = _keys(path, (row for _, _, row in self._objects()))

    def records(
        self, columns: Collection[str], pictures: Collection[str] = ()
    ) -> Iterator[Record]:
        """Every line that is not blank."""
        for number, offset, row in self._objects():
            values = {}
            for name in columns:
                where = f"{self.path}, line {number} ({name})"
                make = self._picture(offset, name, where)
                values[name] = _with_pictures(_value(row, name), make, name in pictures)
            yield Record(f"line {number}", values)

    def _picture(self, offset: int, name: str, where: str) -> Picture:
        return lambda text, index: TextImage(self.path, offset, "", name, where, index)

    def _objects(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        with open_text(self.path) as file:
            for number, offset, line in numbered_lines(file):
                if not line.strip():
                    continue
                try:
                    text = line.decode()
                    value, end = decode(text, len(text) - len(text.lstrip()))
                    if text[end:].strip():
                        raise JsonError("there is more text after the object", [end])
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"data: {self.path}: line {number} is not UTF-8; save the file as UTF-8"
                    ) from error
                except JsonError as error:
                    raise InputError(
                        f"data: {self.path}: line {number} is not valid JSON ({error.reason})"
                    ) from error
                if not isinstance(value, dict):
                    raise InputError(
                        f"data: {self.path}: line {number} is not an object "
                        f'{{"column": value, ...}}, but {json.dumps(value)[:40]}'
                    )
                yield number, offset, value


class JsonFile:
    """A list of objects, alone or as the only list of an object."""

    def __init__(self, path: Path) -> None:
        self.path, self.decimal_commas = path, False
        self.columns = _keys(path, self._objects())

    def records(
        self, columns: Collection[str], pictures: Collection[str] = ()
    ) -> Iterator[Record]:
        """Every object. Pictures in base64 stay in memory."""
        for number, row in enumerate(self._objects(), 1):
            values = {}
            for name in columns:
                where = f"{self.path}, entry {number} ({name})"
                cell = _value(row, name)
                values[name] = _with_pictures(cell, _bytes_of(where), name in pictures)
            yield Record(f"entry {number}", values)

    def _objects(self) -> Iterator[dict[str, Any]]:
        with json_stream(self.path, ROLE) as stream:
            for row in self._list(stream):
                if not isinstance(row, dict):
                    stream.fail('an entry is not an object {"column": value, ...}')
                yield row
            stream.finish()

    def _list(self, stream: JsonStream) -> Iterator[Any]:
        if stream.starts("["):
            yield from stream.items()
            return
        lists = 0
        for key in stream.members():
            if stream.peek() != "[":
                stream.skip()
                continue
            lists += 1
            if lists > 1:
                raise InputError(
                    f"data: {self.path} has several lists, the second is {key!r}; keep only the "
                    f"list of rows"
                )
            yield from stream.items()
        if not lists:
            raise InputError(f"data: {self.path} has no list of rows: [{{...}}, {{...}}]")


def json_table(path: Path) -> JsonFile | JsonLinesFile:
    """A .json file: a list of objects, or one object per line, which many tools write, too."""
    with open_text(path) as file:
        lines = [line.strip() for _, _, line in islice(numbered_lines(file), 2)]
    if len(lines) == 2 and all(line[:1] == b"{" and line[-1:] == b"}" for line in lines):
        return JsonLinesFile(path)
    return JsonFile(path)


def _keys(path: Path, rows: Iterator[dict[str, Any]]) -> tuple[str, ...]:
    keys: dict[str, None] = {}
    for _, row in zip(range(LOOKED_AT), rows, strict=False):
        keys |= dict.fromkeys(_leaves(row))
    if not keys:
        raise InputError(f"data: {path} has no rows")
    return tuple(keys)


def _leaves(row: Mapping[str, Any], depth: int = NESTED) -> Iterator[str]:
    """The keys; of an object in their place, its own, behind a dot."""
    for key, value in row.items():
        if isinstance(value, dict) and value and depth:
            yield from (f"{key}.{leaf}" for leaf in _leaves(value, depth - 1))
        else:
            yield key


def _value(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column; None if the row lacks it."""
    try:
        return json_value(row, name)
    except LookupError:
        return None


def _bytes_of(where: str) -> Picture:
    return lambda text, index: BytesImage(where, decode_base64(where, text))


def _with_pictures(value: Any, picture: Picture, encoded: bool) -> Any:
    """The value with pictures replaced by references, if they may be `encoded`."""
    if not encoded:
        return value
    if isinstance(value, str):
        return picture(value, -1) if is_encoded(value) else value
    if isinstance(value, list):
        return [
            picture(item, k) if isinstance(item, str) and is_encoded(item) else item
            for k, item in enumerate(value)
        ]
    return value
