"""Strict JSON: a repeated key is an error, and every error names its place."""

import json
import re
from collections.abc import Callable, Sequence
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any

from mmq.errors import InputError
from mmq.system.regular_file import DEFAULT_LIMIT, read_text

NEARLY_THE_END = 32  # characters: an error this close to the end may come from cut text
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?|[{}]', re.DOTALL)


class JsonError(ValueError):
    """Text that is not acceptable JSON.

    at: where, as offsets into the text (two for a key). final: more text cannot make it right.
    """

    def __init__(self, reason: str, at: Sequence[int], final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.at, self.final = reason, at, final


class _KeyTwiceError(ValueError):
    """Raised inside the parser, which does not know where it is."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _KeyTwiceError
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
# as `decode`, but its errors are StopIteration, RecursionError and any ValueError
scan: Callable[[str, int], tuple[Any, int]] = vars(_DECODER)["scan_once"]


def decode(text: str, start: int = 0) -> tuple[Any, int]:
    """The value that starts there, and where it ends; JsonError for anything else.

    Infinity and NaN become floats, integers may be of any size.
    """
    try:
        return _DECODER.raw_decode(text, start)
    except JSONDecodeError as error:
        cut = error.msg.startswith("Unterminated string") or error.pos > len(text) - NEARLY_THE_END
        raise JsonError(error.msg, [error.pos], final=not cut) from error
    except _KeyTwiceError as error:
        key, *at = _twice(text, start)
        raise JsonError(f"the key {key} appears twice", at, final=True) from error
    except RecursionError as error:
        raise JsonError("it is nested too deeply", [start], final=True) from error
    except ValueError as error:  # thousands of digits
        raise JsonError(str(error).partition(";")[0], [start], final=True) from error


def _twice(text: str, start: int) -> tuple[str, int, int]:
    """The first key that an object has twice, as it is written, and its two places."""
    objects: list[dict[str, int]] = []
    for token in TOKEN.finditer(text, start):
        if token[0] == "{":
            objects.append({})
        elif token[0] == "}":
            objects.pop()
        elif token[1]:
            written = token[0].removesuffix(token[1])
            key = json.loads(written, strict=False)
            if key in objects[-1]:
                return written, objects[-1][key], token.start()
            objects[-1][key] = token.start()
    raise AssertionError("no key appears twice")


def line_and_column(text: str, offset: int) -> str:
    r"""Where an offset is for somebody with an editor.

    >>> line_and_column("[1,\n 2]", 5)
    'line 2, column 2'
    """
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - text.rfind(chr(10), 0, offset)}"


def parse_json(text: str, path: Path, role: str) -> Any:
    """The one value that a text holds; InputError naming the file, the line and the column."""
    try:
        start = len(text) - len(text.lstrip())
        value, end = decode(text, start)
        if text[end:].strip():
            raise JsonError("there is more behind the end of the value", [end])
    except JsonError as problem:
        places = " and ".join(line_and_column(text, at) for at in problem.at)
        raise InputError(
            f"{role}: {path} is not readable JSON: {problem.reason} ({places})"
        ) from (problem)
    return value


def load_json(path: Path, role: str, limit: int = DEFAULT_LIMIT) -> Any:
    """The value in a JSON file of at most `limit` bytes; InputError naming file and place.

    Refused: what is no regular file, other encodings than UTF-8, a key that appears twice in one
    object, too deep nesting. role: what the file is, as errors begin ("model", "annotations").
    """
    return parse_json(read_text(path, role, limit), path, role)
