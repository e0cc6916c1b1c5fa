"""Streaming annotation files: every entry is checked, and no key appears twice.

Files of hundreds of megabytes are read object by object and are never in memory as a whole.
"""

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from mmq.data.json_stream import JsonStream, json_stream
from mmq.errors import InputError

ROLE = "annotations"
Wanted = Mapping[str, Any]  # key -> type or types
IDENTIFIER = (int, str)
SHOWN = 60  # characters of a value in an error


@dataclass(slots=True)
class Unique:
    """Detects entries that have the same values of some keys; takes 8 bytes per entry.

    optional: keys that may be missing; entries without one of the others are ignored. shown: the
    key whose values identify the two entries in the error.
    """

    keys: tuple[str, ...]
    shown: str = ""
    optional: tuple[str, ...] = ()
    hashes: "array[int]" = field(default_factory=lambda: array("q"))

    def value(self, row: Any) -> str | None:
        """What must not be repeated; 1 and "1" are the same, because both name one thing."""
        values = [None if row.get(key) is None else str(row[key]) for key in self.keys]
        if None in values:
            return None
        values += [row.get(key) for key in self.optional]
        return values[0] if len(values) == 1 and type(values[0]) is str else repr(values)

    def add(self, row: Any) -> None:
        """Record the next entry."""
        value = self.value(row)
        self.hashes.append(hash(value if value is not None else (len(self.hashes), None)))


def first_repeated(hashes: "array[int]") -> tuple[int, int] | None:
    """The positions of the first two equal hashes, by the later one."""
    values = numpy.frombuffer(hashes, dtype=numpy.int64) if hashes else numpy.empty(0, int)
    order = numpy.argsort(values, kind="stable")
    again = order[1:][values[order[1:]] == values[order[:-1]]]
    if not len(again):
        return None
    second = int(again.min())
    return int(numpy.flatnonzero(values == values[second])[0]), second


def entries(
    path: Path, section: str, wanted: Wanted, unique: Sequence[Unique] = ()
) -> Iterator[tuple[int, Any]]:
    """Position and object of every entry of a section; "" is a file that is one list.

    InputError naming the first entry without the wanted keys and types. unique: keys whose values
    no two entries may share; checked at the end.
    """
    index = -1
    with json_stream(path, ROLE) as stream:
        for index, row in enumerate(_section(stream, section)):
            if _unfit(row, wanted) is not None:
                check_entry(row, wanted, path, f"{section}[{index}]", stream.line)
            for keys in unique:
                keys.add(row)
            yield index, row
    if index < 0:
        text = f": the list {section!r} is empty" if section else " is an empty list"
        raise InputError(f"{ROLE}: {path}{text}")
    for keys in unique:
        if pair := first_repeated(keys.hashes):
            _refuse_repeated(path, section, keys, pair)


def keyed_entries(path: Path, wanted: Wanted) -> Iterator[tuple[str, Any]]:
    """Key and object of every entry of a file that is one object, checked like `entries`."""
    hashes = array("q")
    with json_stream(path, ROLE) as stream:
        for key in _keys(stream):
            row = stream.value()
            if _unfit(row, wanted) is not None:
                check_entry(row, wanted, path, f"entry {key!r}", stream.line)
            hashes.append(hash(key))
            yield key, row
    if not hashes:
        raise InputError(f"{ROLE}: {path} has no entries; it should be one object of them")
    if pair := first_repeated(hashes):
        with json_stream(path, ROLE) as stream:
            places: list[tuple[str, str]] = []
            for number, key in enumerate(_keys(stream)):
                places.append((key, f"entry {number + 1}{_in_line(stream.line)}"))
                stream.skip()
        (key, first), (other, second) = (places[k] for k in pair)
        if key == other:  # not only their hashes
            raise twice(path, f"the key {key!r}", first, second)


def check_entry(row: Any, wanted: Wanted, path: Path, place: str, line: int = 0) -> None:
    """InputError if an entry lacks a wanted key or has it with another type."""
    if (key := _unfit(row, wanted)) is None:
        return
    kinds = wanted[key]
    names = " or ".join(kind.__name__ for kind in (kinds if type(kinds) is tuple else (kinds,)))
    given = row[key] if type(row) is dict and key in row else row
    text = f"{ROLE}: {path}: {place} has no {key!r} of type {names}"
    if isinstance(given, str) and not writable(given):
        text += " in valid Unicode"
    raise InputError(f"{text}, but {shortened(given)}{_in_line(line)}")


def _unfit(row: Any, wanted: Wanted) -> str | None:
    """The first wanted key whose value is missing, has another type or cannot be encoded."""
    if type(row) is not dict:
        return next(iter(wanted))
    for key, kinds in wanted.items():
        value = row.get(key)
        kind = type(value)
        if kind is not kinds and (type(kinds) is not tuple or kind not in kinds):
            return key
        if isinstance(value, str) and not (value.isascii() or writable(value)):
            return key
    return None


def check_text(text: str, path: Path, place: str) -> str:
    """The text without space around it; InputError if it is empty or cannot be encoded."""
    stripped = text.strip()
    if not stripped:
        raise InputError(f"{ROLE}: {path}: {place} is empty; correct it or leave it out")
    if "\0" in stripped or not writable(stripped):
        raise InputError(f"{ROLE}: {path}: {place} has invalid characters: {stripped!r:.60}")
    return stripped


def writable(text: str) -> bool:
    r"""Whether a text can be encoded; half of a surrogate pair (\ud83d alone) cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shortened(value: Any) -> str:
    """A value as the file has it, cut after a few words."""
    text = json.dumps(value, ensure_ascii=False)
    text = text if writable(text) else json.dumps(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def twice(path: Path, what: str, first: str, second: str) -> InputError:
    """The error for what must appear only once, with both places."""
    return InputError(
        f"{ROLE}: {path}: {what} appears twice: {first}; {second}. Correct the file so that "
        f"each appears once"
    )


def _section(stream: JsonStream, section: str) -> Iterator[Any]:
    """The elements of one list of a file, which is read to its end."""
    if not section:
        if not stream.starts("["):
            raise InputError(f"{ROLE}: {stream.path} is not a list")
        yield from stream.items()
        stream.finish()
        return
    there = False
    lines: dict[str, int] = {}
    for key in _keys(stream):
        if key in lines:
            places = (f"line {line}" for line in (lines[key], stream.line))
            raise twice(stream.path, f"the key {key!r}", *places)
        lines[key] = stream.line
        if key == section and stream.peek() == "[":
            there = True
            yield from stream.items()
        else:
            stream.skip()
    if not there:
        raise InputError(f"{ROLE}: {stream.path} has no list {section!r}")


def _keys(stream: JsonStream) -> Iterator[str]:
    """The keys of a file that is one object, which is read to its end."""
    if stream.starts("{"):
        yield from stream.members()
        stream.finish()


def _refuse_repeated(path: Path, section: str, unique: Unique, pair: tuple[int, int]) -> None:
    """InputError naming two entries, unless only their hashes agree."""
    places: list[tuple[Any, str]] = []
    with json_stream(path, ROLE) as stream:
        for index, row in enumerate(_section(stream, section)):
            if index in pair:
                shown = f" ({shortened(row.get(unique.shown))})" if unique.shown else ""
                places.append((row, f"{section}[{index}]{_in_line(stream.line)}{shown}"))
    (row, first), (other, second) = places
    if unique.value(row) == unique.value(other):
        what = " with the ".join(f"{key} {shortened(row[key])}" for key in unique.keys)
        raise twice(path, f"the {what}", first, second)


def _in_line(line: int) -> str:
    """Where in a file; "" in a file of one line."""
    return f" in line {line}" if line > 1 else ""
