"""Single cells of a parquet column of bytes, read without the rows before them.

pyarrow decodes a column from the start of its row group, and a page as a whole: of a thousand
large pictures, that is a gigabyte, which its writer may put into one page. Here, pages are found
by their headers alone, and of a page, only the cell's bytes are read and decompressed. Lists, and
encodings and codecs that hub copies do not have, are left to pyarrow.

Source: https://github.com/apache/parquet-format, README.md, Encodings.md and parquet.thrift.
"""

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmq.data.page_bytes import IN_MEMORY, PageBytes, Part, UnsupportedPageError, page_bytes
from mmq.data.thrift_headers import Reader, Struct, TruncatedError
from mmq.system.regular_file import MIB

HEADER = 512  # bytes that most page headers need
LONGEST_HEADER = 16 * MIB
DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # types of pages
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY = 0, 2, 3, 8  # encodings
PAGES = 4  # whose bytes are in memory
CHUNKS = 64  # whose places of pages and cells are in memory


@dataclass(frozen=True, slots=True)
class Page:
    """A page: the numbers in its header, and its bytes in the file."""

    kind: int
    values: int
    encoding: int
    levels: int  # bytes of levels before the compressed bytes, of a page of version 2
    size: int  # uncompressed, with the levels
    is_compressed: bool
    part: Part


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a page: where each is in the page's bytes; None for an empty one."""

    content: PageBytes
    places: Sequence[tuple[int, int] | None]

    def read(self, index: int) -> bytes | None:
        """The bytes of a cell."""
        place = self.places[index]
        return None if place is None else self.content.read(*place)


class Chunk:
    """A column of a row group, whose pages are found by their headers."""

    def __init__(self, path: Path, file: Any, group: int, leaf: int) -> None:
        column = file.schema.column(leaf)
        meta = file.metadata.row_group(group).column(leaf)
        if meta.physical_type != "BYTE_ARRAY" or column.max_repetition_level:
            raise UnsupportedPageError
        self.codec: str = meta.compression
        self.is_text = column.logical_type.type in ("STRING", "JSON", "ENUM")
        self.deepest: int = column.max_definition_level
        starts = [meta.data_page_offset]
        if meta.dictionary_page_offset:
            starts.append(meta.dictionary_page_offset)
        self.chunk = Part(path, min(starts), meta.total_compressed_size)
        pages = self._pages(meta.num_values)
        self.data = [page for page in pages if page.kind != DICTIONARY]
        self.dictionaries = [page for page in pages if page.kind == DICTIONARY]
        self.first_rows = [0]
        for page in self.data:
            self.first_rows.append(self.first_rows[-1] + page.values)

    def cell(self, row: int) -> bytes | None:
        """The bytes in a row; None if it is empty."""
        number = bisect_right(self.first_rows, row) - 1
        return self._cells_of(self.data[number]).read(row - self.first_rows[number])

    def _cells_of(self, page: Page) -> Cells:
        in_memory = _pages_in_memory if page.size <= IN_MEMORY else _pages_on_disk
        return in_memory(self, page)

    def _pages(self, values: int) -> list[Page]:
        pages: list[Page] = []
        position = rows = 0
        while rows < values:
            header, length = self._header(position)
            page = _page(header, self.chunk, position + length)
            position += length + page.part.size
            rows += page.values if page.kind in (DATA, DATA_V2) else 0
            if page.kind in (DATA, DATA_V2, DICTIONARY):
                pages.append(page)
        return pages

    def _header(self, position: int) -> tuple[Struct, int]:
        size = HEADER
        while True:
            available = min(size, self.chunk.size - position)
            reader = Reader(self.chunk.read(position, available))
            try:
                return reader.struct(), reader.position
            except TruncatedError:
                if available < size or size > LONGEST_HEADER:
                    raise UnsupportedPageError from None
                size *= 8

    def _content(self, page: Page) -> PageBytes:
        part = Part(page.part.path, page.part.offset + page.levels, page.part.size - page.levels)
        codec = self.codec if page.is_compressed else "UNCOMPRESSED"
        return page_bytes(part, page.size - page.levels, codec)

    def read(self, page: Page) -> Cells:
        """The places of a page's cells."""
        return self._dictionary(page) if page.kind == DICTIONARY else self._values(page)

    def _dictionary(self, page: Page) -> Cells:
        if page.encoding not in (PLAIN, PLAIN_DICTIONARY):
            raise UnsupportedPageError
        content = self._content(page)
        return Cells(content, _plain(content, 0, page.values))

    def _values(self, page: Page) -> Cells:
        if page.encoding not in (PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY):
            raise UnsupportedPageError  # before its bytes are decompressed, for every cell again
        content = self._content(page)
        start, present = self._levels(page, content)
        count = sum(present)
        if page.encoding == PLAIN:
            source = content
            own: Sequence[tuple[int, int] | None] = _plain(content, start, count)
        else:
            (words,) = self.dictionaries  # ValueError: none, or several
            dictionary = self._cells_of(words)
            data = content.read(start, page.size - page.levels - start)
            indices = _hybrid(data[1:], data[0], count) if count else []
            own, source = [dictionary.places[k] for k in indices], dictionary.content
        cells = iter(own)
        return Cells(source, [next(cells) if is_there else None for is_there in present])

    def _levels(self, page: Page, content: PageBytes) -> tuple[int, list[bool]]:
        """Where the values start, and which rows have one."""
        if not self.deepest:
            return 0, [True] * page.values
        start = 0
        if page.kind == DATA_V2:
            data = page.part.read(0, page.levels)
        else:
            (length,) = struct.unpack("<I", content.read(0, 4))
            data, start = content.read(4, length), 4 + length
        levels = _hybrid(data, self.deepest.bit_length(), page.values)
        return start, [level == self.deepest for level in levels]


@lru_cache(maxsize=PAGES)
def _pages_in_memory(chunk: Chunk, page: Page) -> Cells:
    return chunk.read(page)


@lru_cache(maxsize=CHUNKS)
def _pages_on_disk(chunk: Chunk, page: Page) -> Cells:
    return chunk.read(page)


def _page(header: Struct, chunk: Part, position: int) -> Page:
    """A page by its header (PageHeader in parquet.thrift), whose bytes start at this position."""
    kind, size, compressed = (_number(header, key) for key in (1, 2, 3))
    part = Part(chunk.path, chunk.offset + position, compressed)
    own = header.get({DATA: 5, DICTIONARY: 7, DATA_V2: 8}.get(kind, -1))
    if not isinstance(own, dict):  # an index
        return Page(kind, 0, 0, 0, size, True, part)
    if kind != DATA_V2:
        if kind == DATA and _number(own, 3) != RLE:
            raise UnsupportedPageError
        return Page(kind, _number(own, 1), _number(own, 2), 0, size, True, part)
    levels = _number(own, 5) + _number(own, 6)
    is_compressed = bool(own.get(7, 1))
    return Page(kind, _number(own, 1), _number(own, 4), levels, size, is_compressed, part)


def _number(values: Struct, key: int) -> int:
    value = values.get(key)
    if not isinstance(value, int) or value < 0:
        raise UnsupportedPageError
    return value


def _plain(content: PageBytes, start: int, count: int) -> list[tuple[int, int]]:
    """Where each of these values is; its length is in the four bytes before it."""
    places = []
    for _ in range(count):
        (size,) = struct.unpack("<I", content.read(start, 4))
        places.append((start + 4, size))
        start += 4 + size
    return places


def _hybrid(data: bytes, width: int, count: int) -> list[int]:
    """Integers of `width` bits, in runs of equal ones or packed in groups of eight."""
    values: list[int] = []
    reader = Reader(data)
    while len(values) < count:
        header = reader.varint()
        size = (header >> 1) * width if header & 1 else -(-width // 8)
        packed = int.from_bytes(data[reader.position : reader.position + size], "little")
        reader.position += size
        if header & 1:
            mask = (1 << width) - 1
            values += [packed >> k * width & mask for k in range((header >> 1) * 8)]
        else:
            values += [packed] * min(header >> 1, count - len(values))
    return values[:count]


def chunk_of(path: Path, file: Any, group: int, column: str) -> Chunk | None:
    """The chunk of a column of bytes, or of its `bytes`; None if pyarrow must read it."""
    stat = path.stat()
    return _chunk(path, stat.st_mtime_ns, stat.st_size, file, group, column)


@lru_cache(maxsize=CHUNKS)
def _chunk(
    path: Path, modified: int, size: int, file: Any, group: int, column: str
) -> Chunk | None:
    leaves = {file.schema.column(k).path: k for k in range(len(file.schema))}
    leaf = leaves.get(column, leaves.get(f"{column}.bytes"))
    try:
        return None if leaf is None else Chunk(path, file, group, leaf)
    except FALLBACK:
        return None


# whatever a damaged or unusual file causes: pyarrow reads it, or reports what is wrong with it
FALLBACK = (UnsupportedPageError, TruncatedError, ValueError, LookupError, struct.error, OSError)
