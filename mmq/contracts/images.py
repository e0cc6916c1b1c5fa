"""References to pictures: files, bytes, or anything else that can be opened later."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from mmq.system.image_decoding import ImageFacts, decode_image, image_facts
from mmq.system.regular_file import MIB, read_regular

FILE_LIMIT = 512 * MIB


class ImageRef(ABC):
    """A picture that is opened when it is needed. Equal references are the same picture.

    Subclasses are frozen dataclasses, so that references can be dictionary keys and pickled;
    `decode_image` and `image_facts` of mmq.system.image_decoding do the work for any bytes.
    """

    __slots__ = ()
    name: str  # shown in errors, e.g. a path

    @abstractmethod
    def open(self) -> Image.Image:
        """The picture as 8-bit RGB; InputError with its name if it cannot be read.

        Upright by its EXIF orientation, transparency on white, gray of 16 bits scaled to 8.
        """

    @abstractmethod
    def digest(self) -> str:
        """A hash of the content: two pictures with the same digest are the same picture."""

    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of what `open` returns."""
        return self.open().size


@dataclass(frozen=True, slots=True)
class FileImage(ImageRef):
    """A picture in a file of its own."""

    path: Path
    name: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", str(self.path))

    def open(self) -> Image.Image:
        """The picture as 8-bit RGB."""
        return decode_image(self.name, _content(self.path))

    def digest(self) -> str:
        """A hash of the file's content; computed once until the file changes."""
        return self._facts().digest

    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self._facts().size

    def _facts(self) -> ImageFacts:
        try:
            stat = self.path.stat()
        except (OSError, ValueError):
            return image_facts(
                self.name, _content(self.path)
            )  # raises an InputError with the reason
        return _file_facts(self.path, stat.st_mtime_ns, stat.st_size)


@dataclass(frozen=True, slots=True)
class BytesImage(ImageRef):
    """A picture with its file content in memory, such as a cell of a table."""

    name: str
    data: bytes = field(repr=False)

    def open(self) -> Image.Image:
        """The picture as 8-bit RGB."""
        return decode_image(self.name, self.data)

    def digest(self) -> str:
        """A hash of the content."""
        return image_facts(self.name, self.data).digest

    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return image_facts(self.name, self.data).size


def _content(path: Path) -> bytes:
    return read_regular(path, "image", FILE_LIMIT)


@cache
def _file_facts(path: Path, modified: int, size: int) -> ImageFacts:
    return image_facts(str(path), _content(path))
