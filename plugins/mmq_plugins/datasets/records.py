"""Rows of a table, whatever file they come from: columns by name, and where each row is."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

SHOWN = 40  # characters of a value in an error


@dataclass(frozen=True, slots=True)
class Record:
    """A row: values by column. Pictures inside the file are ImageRefs or lists of them.

    place: where it is, e.g. "line 4".
    """

    place: str
    values: Mapping[str, Any]


class TableFile(Protocol):
    """A file with rows and named columns."""

    path: Path
    columns: tuple[str, ...]
    decimal_commas: bool  # whether 3,5 may be a number
    is_text: bool  # whether all its cells are texts

    def records(
        self, columns: Collection[str], pictures: Collection[str] = ()
    ) -> Iterator[Record]:
        """All rows, with at least these columns.

        pictures: columns whose texts may be pictures in base64.
        """


def shown(value: Any) -> str:
    """A value in an error, shortened."""
    if isinstance(value, (str, int, float, bool, type(None))):
        text = repr(value)
    elif isinstance(value, (list, tuple)) and value:
        text = f"[{shown(value[0])}, ...]" if len(value) > 1 else f"[{shown(value[0])}]"
    else:
        text = "<picture>" if hasattr(value, "digest") else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def as_text(value: Any) -> str:
    """A cell as text: 3.0 of a spreadsheet is "3"; "" for a missing value."""
    if type(value) is str:
        return value.strip()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value).strip()
