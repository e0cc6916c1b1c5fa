"""JSON files of any size, read entry by entry, with errors that name the place."""

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol

from tqdm import tqdm

from mmq.errors import InputError
from mmq.system.progress import has_bars
from mmq.system.regular_file import MIB, not_utf8, open_regular
from mmq.system.strict_json import NEARLY_THE_END, JsonError, decode, scan

CHUNK = MIB // 2  # bytes read at once
ENTRY_LIMIT = 16 * MIB  # characters of one entry, or of one skipped value
COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
SPACE = re.compile(r"[ \t\n\r]*")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class JsonStream:
    """The text of a JSON file from front to back, with at most one entry in memory."""

    def __init__(self, file: _Readable, path: Path, role: str) -> None:
        self.file, self.path, self.role = file, path, role
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.place, self.ended = "", 0, False
        self.begins = 0  # where the last value begins
        self._dropped_lines = 0
        self._dropped = 0  # characters before the text in memory
        self._first = b""

    @property
    def line(self) -> int:
        """The line in which the last value begins."""
        return self._dropped_lines + self.text.count("\n", 0, self.begins) + 1

    def peek(self) -> str:
        """The next character that is not white space, without reading it; "" at the end."""
        while True:
            match = SPACE.match(self.text, self.place)
            self.place = match.end() if match else self.place
            if self.place < len(self.text):
                return self.text[self.place]
            if not self._more():
                return ""

    def value(self) -> Any:
        """The complete value that starts here."""
        self.peek()
        self.begins = self.place
        while True:
            try:
                value, end = decode(self.text, self.place)
            except JsonError as error:
                reason, at, final = error.reason, error.at, error.final
            else:
                match = SPACE.match(self.text, end)
                end = match.end() if match else end
                # look at what follows: a number may be longer than the text in memory
                if self.text[end : end + 1] in (",", "]", "}", ":"):
                    self.place = end
                    return value
                reason, at = "Expecting ',' delimiter", [end]
                final = end < len(self.text) - NEARLY_THE_END
            if final:
                self.fail(reason, *at)
            if len(self.text) - self.place > ENTRY_LIMIT:
                self.fail(f"an entry of more than {ENTRY_LIMIT // MIB} MiB starts")
            if not self._more():
                self.fail(reason, *at)

    def starts(self, bracket: str) -> bool:
        """Whether a list ("[") or an object ("{") starts here; an error if neither does."""
        first = self.peek()
        if first not in ("[", "{"):
            self.fail("a list or an object should start" if first else "the file is empty")
        return first == bracket

    def items(self) -> Iterator[Any]:
        """The elements of the list that starts here."""
        self.place += 1
        if self.peek() == "]":
            self.place += 1
            return
        while True:
            yield from self._quick_items()
            yield self.value()
            if self._next("]"):
                return
            self.peek()

    def _quick_items(self) -> Iterator[Any]:
        """The next elements, up to the last one or one that needs the slow path."""
        text, place = self.text, self.place
        while True:
            try:
                value, end = scan(text, place)
            except (StopIteration, ValueError, RecursionError):
                return
            if text.startswith(", ", end):  # as json.dump writes it: quicker than the expression
                end += 2
            elif match := COMMA.match(text, end):
                end = match.end()
            else:
                return
            if end >= len(text):
                return
            self.begins, self.place = place, end
            place = end
            yield value

    def members(self) -> Iterator[str]:
        """The keys of the object that starts here; read or skip each value before the next."""
        self.place += 1
        if self.peek() == "}":
            self.place += 1
            return
        while True:
            if self.peek() != '"':
                self.fail("Expecting property name enclosed in double quotes")
            key = self.value()
            if self.peek() != ":":
                self.fail("Expecting ':' delimiter")
            self.place += 1
            yield key
            if self._next("}"):
                return

    def skip(self) -> None:
        """Skip the value that starts here."""
        if self.peek() == "[":
            for _ in self.items():
                pass
        else:
            self.value()

    def finish(self) -> None:
        """InputError if anything follows the value."""
        if self.peek():
            self.fail("there is text after the end of the value")

    def fail(self, reason: str, *at: int) -> NoReturn:
        """Raise an InputError for the current position, or for these in the text in memory."""
        places = " and ".join(self._line_and_column(position) for position in at or (self.place,))
        raise InputError(
            f"{self.role}: {self.path} is not readable JSON: {reason} ({places})"
        ) from None

    def _next(self, closing: str) -> bool:
        """Step over a comma (False) or the closing bracket (True)."""
        character = self.peek()
        if character not in (",", closing):
            self.fail(f"Expecting ',' delimiter or {closing!r}")
        self.place += 1
        return character == closing

    def _more(self) -> bool:
        """Read more of the file; False at its end."""
        if self.ended:
            return False
        rest = self.text[self.place :]
        try:
            chunk = self.file.read(max(CHUNK, len(rest)))  # twice as much each time
        except OSError as error:
            raise InputError(
                f"{self.role}: {self.path} cannot be read ({error.strerror})"
            ) from error
        self._first = self._first or chunk[:2]
        text = self._decoded(chunk)
        if not chunk:
            self.ended = True
            return False
        self._dropped += self.place
        self._dropped_lines += self.text.count("\n", 0, self.place)
        self.text, self.place, self.begins = rest + text, 0, 0
        return True

    def _decoded(self, chunk: bytes) -> str:
        try:
            text = self.decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            before = self.text.count("\n") + error.object[: error.start].count(b"\n")
            line = self._dropped_lines + before + 1
            raise not_utf8(self.path, self.role, line, self._first) from error
        at_start = self._dropped + len(self.text) == 0
        return text.removeprefix("\ufeff") if at_start else text

    def _line_and_column(self, at: int) -> str:
        line = self._dropped_lines + self.text.count("\n", 0, at) + 1
        if line == 1:
            return f"line 1, column {self._dropped + at + 1}"
        start = self.text.rfind("\n", 0, at)
        return f"line {line}" + (f", column {at - start}" if start >= 0 else "")


@contextmanager
def json_stream(path: Path, role: str) -> Iterator[JsonStream]:
    """The file's text; InputError if it is missing, not a regular file or not JSON."""
    # the bar appears only if a file takes longer than two seconds
    options: dict[str, Any] = {"leave": False, "delay": 2, "disable": not has_bars()}
    with open_regular(path, role) as file:
        size = path.stat().st_size
        with tqdm.wrapattr(file, "read", size, desc=f"read {path.name}", **options) as watched:
            yield JsonStream(watched, path, role)
