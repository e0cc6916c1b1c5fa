"""The uncompressed bytes of a page, of which any part can be read alone, in bounded memory."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mmq.data.thrift_headers import Reader
from mmq.system.regular_file import MIB

IN_MEMORY = 8 * MIB  # larger pages are not decompressed as a whole
BLOCK = 2**16  # bytes that Snappy compresses independently
CACHED = 2  # maximum blocks that stay in memory, for the next short read
WINDOW = 2**13  # bytes that are read to follow Snappy's elements
MOST_ELEMENTS = 64  # per block: data that is compressed this much is not followed in Python
CODECS = {"SNAPPY": "snappy", "GZIP": "gzip", "ZSTD": "zstd", "BROTLI": "brotli"}


class UnsupportedPageError(Exception):
    """The page is read by pyarrow instead."""


class PageBytes(Protocol):
    """Bytes that are read by offset."""

    def read(self, start: int, size: int) -> bytes:
        """These bytes."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file."""

    path: Path
    offset: int
    size: int

    def read(self, start: int, size: int) -> bytes:
        """Bytes of the part. UnsupportedPageError if the file ends before them."""
        if start < 0 or size < 0 or start + size > self.size:
            raise UnsupportedPageError
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + start)
            data = file.read(size)
        if len(data) != size:
            raise UnsupportedPageError
        return data


@dataclass(frozen=True, slots=True)
class InMemory:
    """Bytes that are in memory."""

    data: bytes

    def read(self, start: int, size: int) -> bytes:
        """These bytes. UnsupportedPageError if there are fewer."""
        if start < 0 or size < 0 or start + size > len(self.data):
            raise UnsupportedPageError
        return self.data[start : start + size]


def page_bytes(part: Part, size: int, codec: str) -> PageBytes:
    """The `size` uncompressed bytes of a part that is compressed by a codec of parquet."""
    if codec == "UNCOMPRESSED":
        return InMemory(part.read(0, size)) if size <= IN_MEMORY else part
    if size <= IN_MEMORY and codec in CODECS:
        return InMemory(_decompressed(part.read(0, part.size), size, CODECS[codec]))
    if codec == "SNAPPY":
        return SnappyBlocks.of(part, size)
    raise UnsupportedPageError


def _decompressed(data: bytes, size: int, codec: str) -> bytes:
    import pyarrow

    content: bytes = pyarrow.Codec(codec).decompress(data, decompressed_size=size, asbytes=True)
    return content


@dataclass(slots=True)
class SnappyBlocks:
    """Bytes that Snappy compressed in independent blocks of 64 KiB.

    starts: where each block starts in the part, and the end.
    """

    part: Part
    size: int
    starts: list[int]
    _last: tuple[int, int, bytes] = field(default=(0, 0, b""))

    @classmethod
    def of(cls, part: Part, size: int) -> "SnappyBlocks":
        """Find the blocks; UnsupportedPageError unless they are independent and hardly smaller."""
        return cls(part, size, _Elements(part, size).starts())

    def read(self, start: int, size: int) -> bytes:
        """These bytes, of which only their blocks are decompressed."""
        if start < 0 or size < 0 or start + size > self.size:
            raise UnsupportedPageError
        first, end = start // BLOCK, -(-(start + size) // BLOCK)
        cached, cached_end, content = self._last
        if not cached <= first <= end <= cached_end:
            content, cached = self._blocks(first, end), first
            if end - first <= CACHED:
                self._last = (first, end, content)
        offset = start - cached * BLOCK
        return content[offset : offset + size]

    def _blocks(self, first: int, end: int) -> bytes:
        size = min(end * BLOCK, self.size) - first * BLOCK
        data = self.part.read(self.starts[first], self.starts[end] - self.starts[first])
        return _decompressed(_varint(size) + data, size, "snappy") if size else b""


class _Elements:
    """Follows the elements of a Snappy stream without decompressing them."""

    def __init__(self, part: Part, size: int) -> None:
        self.part, self.size = part, size
        self.window, self.window_start = b"", 0

    def starts(self) -> list[int]:
        """The offset of the first element of each block, and the end of the last."""
        reader = Reader(self._bytes(0, 10))
        if reader.varint() != self.size:
            raise UnsupportedPageError
        position, done, elements = reader.position, 0, 0
        starts: list[int] = []
        while done < self.size:
            if done % BLOCK == 0:
                starts.append(position)
            elements += 1
            if elements > MOST_ELEMENTS * (len(starts) + 16):
                raise UnsupportedPageError
            length, offset, position = self._element(position)
            if offset > done % BLOCK or done % BLOCK + length > BLOCK:
                raise UnsupportedPageError  # refers to, or continues in, another block
            done += length
        if done != self.size or position != self.part.size:
            raise UnsupportedPageError
        return [*starts, position]

    def _element(self, position: int) -> tuple[int, int, int]:
        """The length of an element, how far back it refers, and where the next one starts."""
        head = self._bytes(position, 5)
        tag, kind = head[0], head[0] & 3
        if kind == 0:
            extra = max(0, (tag >> 2) - 59)
            length = int.from_bytes(head[1 : 1 + extra], "little") + 1 if extra else (tag >> 2) + 1
            return length, 0, position + 1 + extra + length
        if kind == 1:
            return (tag >> 2 & 7) + 4, tag >> 5 << 8 | head[1], position + 2
        width = 2 if kind == 2 else 4
        return (tag >> 2) + 1, int.from_bytes(head[1 : 1 + width], "little"), position + 1 + width

    def _bytes(self, position: int, count: int) -> bytes:
        """Up to `count` bytes of the part, padded with zeros behind its end."""
        start = position - self.window_start
        if start < 0 or start + count > len(self.window):
            size = min(WINDOW, self.part.size - position)
            if size <= 0:
                raise UnsupportedPageError
            is_last = position + size == self.part.size
            self.window = self.part.read(position, size) + bytes(count if is_last else 0)
            self.window_start, start = position, 0
        return self.window[start : start + count]


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])
