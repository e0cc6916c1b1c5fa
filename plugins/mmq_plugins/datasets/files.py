"""Reading annotation files with errors that say where the trouble is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmq.errors import InputError


def read_json(path: Path) -> Any:
    """The file's content; InputError if it is missing or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"annotations: {path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(f"annotations: {path} is not readable JSON ({error})") from error


def entries(content: Any, path: Path, section: str, wanted: dict[str, Any]) -> Iterator[Any]:
    """The objects of a section, each with the wanted keys and types; InputError naming the first
    that lacks one, by its position.
    """
    rows = content.get(section) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise InputError(f"annotations: {path} has no list {section!r}")
    if not rows:
        raise InputError(f"annotations: {path}: the list {section!r} is empty")
    for index, row in enumerate(rows):
        for key, kind in wanted.items():
            if not isinstance(row, dict) or not isinstance(row.get(key), kind):
                expected = " or ".join(
                    k.__name__ for k in (kind if type(kind) is tuple else (kind,))
                )
                raise InputError(
                    f"annotations: {path}: {section}[{index}] has no {key!r} of type {expected}"
                )
        yield row
