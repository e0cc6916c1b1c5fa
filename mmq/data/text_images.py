"""Pictures that are written as base64 in a text file, read when they are opened."""

import base64
import binascii
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from mmq.data.cell_images import CellImage
from mmq.errors import InputError
from mmq.system.image_decoding import ImageFacts, decode_image, image_facts
from mmq.system.regular_file import MIB, open_regular

# how the base64 of a JPEG, PNG, GIF, WebP, TIFF and BMP file begins
STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkq", "TU0AK", "Qk")
FEWEST = 64  # characters of a picture; anything shorter is a name
ALPHABET = re.compile(r"[A-Za-z0-9+/=\r\n]{256}")
CELL_LIMIT = 512 * MIB
FIRST_BLOCK = 2**16  # bytes that show how lines end
TURNS = (("from", "value"), ("role", "content"))  # keys of a turn: the speaker, and the text
BOM = b"\xef\xbb\xbf"
# successive characters that are not ASCII: more than western languages have
NOT_ASCII = re.compile(r"[^\x00-\x7f]{3,}")
PUNCTUATION = frozenset("“”„‚‘’«»‹›–—…€\u00a0")
DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64,", re.ASCII)


def is_encoded(text: str) -> bool:
    """Whether a text is a data URI, or the base64 of a picture, rather than a path."""
    if text[:5] == "data:":
        return True
    if len(text) < FEWEST or "." in text[:256] or "\\" in text[:256]:
        return False
    return text.startswith(STARTS) or ALPHABET.match(text) is not None


def decode_base64(name: str, text: str) -> bytes:
    """The file content of a base64 text or a data URI; InputError if it is neither."""
    if text[:5] == "data:":
        match = DATA_URI.match(text)
        if match is None:
            raise InputError(f"image: {name}: {text[:40]!r}... is not data:image/...;base64,...")
        text = text[match.end() :]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"image: {name} is not valid base64 ({error})") from error


@dataclass(frozen=True, slots=True)
class TextImage(CellImage):
    """A picture in a record of a CSV or JSON Lines file.

    offset: where the record starts, in bytes. delimiter: of a CSV file; "" for JSON Lines. column:
    its number in a CSV file, or its key. index: in a list of pictures, or -1.
    """

    path: Path
    offset: int
    delimiter: str
    column: int | str
    name: str = field(compare=False, repr=False)
    index: int = -1

    def open(self) -> Image.Image:
        """The picture as 8-bit RGB."""
        return decode_image(self.name, self._content())

    def read_facts(self) -> ImageFacts:
        """The digest and the size, from the content."""
        return image_facts(self.name, self._content())

    def _content(self) -> bytes:
        with open_text(self.path) as file:
            file.seek(self.offset)
            try:
                value = self._cell(file)
            except (csv.Error, ValueError, LookupError, StopIteration) as error:
                raise InputError(
                    f"image: {self.name} is no longer in {self.path}, which has changed"
                ) from error
        return decode_base64(self.name, value)

    def _cell(self, file: BinaryIO) -> str:
        if self.delimiter:
            csv.field_size_limit(CELL_LIMIT)
            lines = (decode_line(line) for line in file)
            rows = csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True)
            cell: Any = next(rows)[int(self.column)]  # as the table was read
        else:
            cell = json_value(json.loads(decode_line(file.readline())), str(self.column))
        text: str = (cell if self.index < 0 else cell[self.index]).strip()
        return text


def json_value(row: Mapping[str, Any], column: str) -> Any:
    """The value of a key, or of keys joined by dots, in objects inside each other.

    Of a list of objects, one value per object; of the turns of a conversation, a speaker's texts.
    LookupError if there is none.

    >>> json_value({"qa": {"question": "Who?"}}, "qa.question")
    'Who?'
    >>> json_value({"answers": [{"text": "red"}, {"text": "blue"}]}, "answers.text")
    ['red', 'blue']
    """
    if column in row:
        return row[column]
    key, _, rest = column.partition(".")
    inner = row[key]
    if isinstance(inner, list) and rest:
        return _of_each([item for item in inner if isinstance(item, Mapping)], rest)
    if not isinstance(inner, Mapping) or not rest:
        raise LookupError(column)
    return json_value(inner, rest)


def _of_each(items: Sequence[Mapping[str, Any]], column: str) -> list[Any]:
    for by, content in TURNS:
        if any(item.get(by) == column for item in items):
            return [item.get(content) for item in items if item.get(by) == column]
    return [json_value(item, column) for item in items]


def decode_line(line: bytes) -> str:
    """The text of a line: UTF-8, or else Windows-1252."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252")


def foreign_word(text: str) -> str:
    """A word that no western language has, as other code pages read as Windows-1252; or ""."""
    if text.isascii():
        return ""
    for word in NOT_ASCII.findall(text):
        if sum(character not in PUNCTUATION for character in word) > 2:
            return str(word)
    return ""


def open_text(path: Path) -> BinaryIO:
    """A text file for reading bytes, without a byte order mark; UTF-16 as UTF-8, CR as LF.

    InputError if it is not a regular file.
    """
    with open_regular(path, "data") as file:
        start = file.read(4)
        if start[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            block = start + file.read(FIRST_BLOCK)
            if b"\r" in block and b"\n" not in block:  # lines end as on old Macs
                text = (block + file.read()).removeprefix(BOM)
                return io.BytesIO(text.replace(b"\r", b"\n"))
            again = open(path, "rb")  # noqa: SIM115 - the caller closes it
            again.seek(len(BOM) if block.startswith(BOM) else 0)
            return again
        try:
            content = (start + file.read()).decode("utf-16")
        except UnicodeDecodeError as error:
            raise InputError(f"data: {path} is damaged UTF-16 text; save it as UTF-8") from error
    return io.BytesIO(content.encode())


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and content of each line."""
    number = 0
    offset = file.tell()
    while line := file.readline():
        number += 1
        yield number, offset, line
        offset += len(line)
