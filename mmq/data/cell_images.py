"""Pictures that are cells of a file, whose facts are computed once until the file changes."""

from abc import abstractmethod
from functools import cache
from pathlib import Path

from mmq.contracts.images import ImageRef
from mmq.errors import InputError
from mmq.system.image_decoding import ImageFacts


class CellImage(ImageRef):
    """A picture inside the file at `path`. Subclasses compute its facts in `read_facts`."""

    __slots__ = ()
    path: Path

    def digest(self) -> str:
        """A hash of the content; computed once until the file changes."""
        return self._facts().digest

    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self._facts().size

    @abstractmethod
    def read_facts(self) -> ImageFacts:
        """The digest and the size, from the content."""

    def _facts(self) -> ImageFacts:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise InputError(f"image: {self.name} cannot be read ({error.strerror})") from error
        return _facts(self, stat.st_mtime_ns, stat.st_size)


@cache
def _facts(image: CellImage, modified: int, size: int) -> ImageFacts:
    return image.read_facts()
