"""Pictures in cells of parquet files, read when they are opened.

A cell is read alone (see parquet_pages); in lists, and where that is not possible, by streaming
its row group's column up to its row: pictures that are opened in the order of their rows are then
read once.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from mmq.contracts.images import FileImage
from mmq.data.cell_images import CellImage
from mmq.data.parquet_pages import FALLBACK, chunk_of
from mmq.data.text_images import decode_base64
from mmq.errors import InputError
from mmq.system.image_decoding import POINTER, ImageFacts, decode_image, image_facts
from mmq.system.regular_file import MIB, other_kind

BATCH = 16  # rows that are in memory together
CURSORS = 4  # columns that are read at the same time
NO_INDEX = -1
POINTER_SIZE = 1024  # bytes: a pointer of Git LFS has fewer
_lock = threading.Lock()


@contextmanager
def parquet_errors(role: str, name: str) -> Iterator[None]:
    """InputError that names the file, or the picture, for whatever pyarrow raises."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, NotImplementedError) as error:  # ArrowException is one of these
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{role}: {name} cannot be read as parquet ({reason}); if it was downloaded, download "
            f"it again"
        ) from error


def open_parquet(path: Path) -> Any:
    """A pyarrow ParquetFile; InputError if the path is not a parquet file."""
    try:
        kind = other_kind(path)
        stat = path.stat()
    except OSError as error:
        raise InputError(f"data: {path} cannot be read ({error.strerror})") from error
    if kind:
        raise InputError(f"data: {path} is {kind}; give a parquet file")
    if stat.st_size < POINTER_SIZE and path.read_bytes().startswith(POINTER):
        raise InputError(f"data: {path} is a pointer of Git LFS; run `git lfs pull` in its folder")
    return _opened(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _opened(path: Path, modified: int, size: int) -> Any:
    from pyarrow import parquet

    with parquet_errors("data", str(path)):
        # a buffer: otherwise, a whole column chunk would be in memory
        return parquet.ParquetFile(path, buffer_size=MIB, pre_buffer=False)


@dataclass(frozen=True, slots=True)
class ParquetImage(CellImage):
    """A picture in a cell: the bytes of a file, alone or with its path, or a list of such cells.

    row: in its row group. index: in the cell's list, or NO_INDEX.
    """

    path: Path
    group: int
    row: int
    column: str
    name: str = field(compare=False, repr=False)
    index: int = NO_INDEX

    def open(self) -> Image.Image:
        """The picture as 8-bit RGB."""
        content = self._content()
        return (
            content.open() if isinstance(content, FileImage) else decode_image(self.name, content)
        )

    def read_facts(self) -> ImageFacts:
        """The digest and the size, from the content."""
        content = self._content()
        if isinstance(content, FileImage):
            return ImageFacts(content.digest(), content.size())
        return image_facts(self.name, content)

    def _content(self) -> "bytes | FileImage":
        with _lock, parquet_errors("image", self.name):
            cell = _cell(self.path, self.group, self.row, self.column)
        if self.index != NO_INDEX:
            cell = cell[self.index] if cell and self.index < len(cell) else None
        path = cell.get("path") if isinstance(cell, dict) else None
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is None and path:
            return FileImage(self.path.parent / path)
        if isinstance(content, str) and content:
            return decode_base64(self.name, content)
        if not isinstance(content, bytes) or not content:
            raise InputError(f"image: {self.name} is empty; remove the row or add its picture")
        return content


class _Cursor:
    """Reads a column of a row group forward, a few rows at a time."""

    def __init__(self, path: Path, group: int, column: str) -> None:
        file = open_parquet(path)
        self.batches = file.iter_batches(
            batch_size=BATCH, row_groups=[group], columns=[column], use_threads=False
        )
        self.start, self.cells = 0, None

    def cell(self, row: int) -> Any:
        """The value in this row, which is not before the batch that was read last."""
        while self.cells is None or row >= self.start + len(self.cells):
            self.start += 0 if self.cells is None else len(self.cells)
            batch = next(self.batches, None)
            if batch is None:
                raise ValueError(f"the row group ends before row {row}")
            self.cells = batch.column(0)
        return self.cells[row - self.start].as_py()


_cursors: dict[tuple[Path, int, str], _Cursor] = {}  # the least recently used comes first


def _cell(path: Path, group: int, row: int, column: str) -> Any:
    """A cell's value, read alone if its column allows that."""
    file = open_parquet(path)
    with suppress(*FALLBACK):
        chunk = chunk_of(path, file, group, column)
        if chunk is not None and (content := chunk.cell(row)) is not None:
            return content.decode() if chunk.is_text else content
    return _streamed(path, group, row, column)


def _streamed(path: Path, group: int, row: int, column: str) -> Any:
    key = (path, group, column)
    cursor = _cursors.pop(key, None)
    if cursor is None or row < cursor.start:
        cursor = _Cursor(path, group, column)
    value = cursor.cell(row)
    _cursors[key] = cursor  # only after success: a failed one would continue after the damage
    while len(_cursors) > CURSORS:
        del _cursors[next(iter(_cursors))]
    return value
