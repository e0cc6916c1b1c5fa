"""JSON Lines files, and JSON files with a list of objects."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mmq.contracts import BytesImage, ImageRef
from mmq.data.json_stream import JsonStream, json_stream
from mmq.data.text_images import (
    TURNS,
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
        self.path, self.decimal_commas, self.is_text = path, False, False
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
        self.path, self.decimal_commas, self.is_text = path, False, False
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
                    stream.fail(
                        'a row is not an object {"column": value, ...}, as pandas writes it with '
                        'df.to_json(path, orient="records")'
                    )
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
            raise InputError(
                f"data: {self.path} has no list of rows: [{{...}}, {{...}}]; pandas writes one "
                f'with df.to_json(path, orient="records")'
            )


def json_table(path: Path) -> JsonFile | JsonLinesFile:
    """A .json file: a list of objects, or one object per line, which many tools write, too."""
    with open_text(path) as file:
        lines = [line.strip() for _, _, line in islice(numbered_lines(file), 2)]
    if len(lines) == 2 and all(line[:1] == b"{" and line[-1:] == b"}" for line in lines):
        return JsonLinesFile(path)
    return JsonFile(path)


def _keys(path: Path, rows: Iterator[dict[str, Any]]) -> tuple[str, ...]:
    filled: dict[str, bool] = {}
    for _, row in zip(range(LOOKED_AT), rows, strict=False):
        for key, is_filled in _leaves(row):
            filled[key] = filled.get(key, False) or is_filled
    if not filled:
        raise InputError(f"data: {path} has no rows")
    # an empty list may be one of objects, whose keys other rows show
    inner = {key[:k] for key in filled for k, character in enumerate(key) if character == "."}
    return tuple(key for key, is_filled in filled.items() if is_filled or key not in inner)


def _leaves(row: Mapping[str, Any], depth: int = NESTED) -> Iterator[tuple[str, bool]]:
    """The keys, and whether they have values; of objects in their place, their own, with dots."""
    for key, value in row.items():
        if speakers := _speakers(value):
            yield from ((f"{key}.{speaker}", True) for speaker in speakers)
        elif depth and (objects := _objects_in(value)):
            own = dict(leaf for item in objects for leaf in _leaves(item, depth - 1))
            yield from ((f"{key}.{leaf}", is_filled) for leaf, is_filled in own.items())
        else:
            yield key, value not in (None, [], {})


def _speakers(value: Any) -> list[str]:
    """The speakers of a conversation: of LLaVA's {"from", "value"}, or {"role", "content"}."""
    turns = value if isinstance(value, list) else []
    for by, content in TURNS:
        if turns and all(isinstance(turn, dict) and {by, content} <= {*turn} for turn in turns):
            return list(dict.fromkeys(str(turn[by]) for turn in turns))
    return []


def _objects_in(value: Any) -> list[dict[str, Any]]:
    """The object, or the objects of a list with a part per object; [] for anything else.

    VQAv2's answers, objects with more than the answer, are left whole.
    """
    if isinstance(value, dict):
        return [value] if value else []
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [] if any("answer" in item for item in value) else value
    return []


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
