"""Strict JSON: a repeated key is an error, and every error names its place."""

import json
import re
from collections.abc import Callable, Sequence
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any

from mmq.errors import InputError
from mmq.system.regular_file import DEFAULT_LIMIT, read_text

NEARLY_THE_END = 32  # characters: an error this close to the end may be due to truncation
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?|[{}]', re.DOTALL)


class JsonError(ValueError):
    """Text that is not acceptable JSON.

    at: offsets into the text (two for a key). final: more text cannot make it valid.
    """

    def __init__(self, reason: str, at: Sequence[int], final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.at, self.final = reason, at, final


class _RepeatedKeyError(ValueError):
    """Raised inside the parser, which does not know where it is."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _RepeatedKeyError
    return result


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
# as `decode`, but its errors are StopIteration, RecursionError and any ValueError
scan: Callable[[str, int], tuple[Any, int]] = vars(_DECODER)["scan_once"]


def decode(text: str, start: int = 0) -> tuple[Any, int]:
    """The value at `start`, and where it ends; JsonError if it is not valid.

    Infinity and NaN become floats; integers may have any size.
    """
    try:
        return _DECODER.raw_decode(text, start)
    except JSONDecodeError as error:
        cut = error.msg.startswith("Unterminated string") or error.pos > len(text) - NEARLY_THE_END
        raise JsonError(error.msg, [error.pos], final=not cut) from error
    except _RepeatedKeyError as error:
        key, *at = _repeated_key(text, start)
        raise JsonError(f"the key {key} appears twice", at, final=True) from error
    except RecursionError as error:
        raise JsonError("it is nested too deeply", [start], final=True) from error
    except ValueError as error:  # thousands of digits
        raise JsonError(str(error).partition(";")[0], [start], final=True) from error


def _repeated_key(text: str, start: int) -> tuple[str, int, int]:
    """The first repeated key of an object, as it is written, and its two offsets."""
    objects: list[dict[str, int]] = []
    for token in TOKEN.finditer(text, start):
        if token[0] == "{":
            objects.append({})
        elif token[0] == "}":
            objects.pop()
        elif token[1]:
            text_of_key = token[0].removesuffix(token[1])
            key = json.loads(text_of_key, strict=False)
            if key in objects[-1]:
                return text_of_key, objects[-1][key], token.start()
            objects[-1][key] = token.start()
    raise AssertionError("no key appears twice")


def line_and_column(text: str, offset: int) -> str:
    r"""An offset as line and column, as editors count them.

    >>> line_and_column("[1,\n 2]", 5)
    'line 2, column 2'
    """
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - text.rfind(chr(10), 0, offset)}"


def parse_json(text: str, path: Path, role: str) -> Any:
    """The single value in a text; InputError names the file, line and column."""
    try:
        start = len(text) - len(text.lstrip())
        value, end = decode(text, start)
        if text[end:].strip():
            raise JsonError("there is more text after the value", [end])
    except JsonError as problem:
        places = " and ".join(line_and_column(text, at) for at in problem.at)
        raise InputError(
            f"{role}: {path} is not readable JSON: {problem.reason} ({places})"
        ) from (problem)
    return value


def load_json(path: Path, role: str, limit: int = DEFAULT_LIMIT) -> Any:
    """The value in a JSON file of at most `limit` bytes; InputError names file and place.

    Rejects files that are not regular or not UTF-8, repeated keys in an object, and nesting that
    is too deep. role: what the file is; errors start with it ("model", "annotations").
    """
    return parse_json(read_text(path, role, limit), path, role)
