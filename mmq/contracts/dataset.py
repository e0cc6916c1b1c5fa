"""What a data set implements: samples from a folder."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    pass


class Dataset(ABC):
    """A data set in the layout that its official downloads unpack to."""

    version: ClassVar[int] = 1  # raise it with every change that gives other samples
    tasks: ClassVar[tuple[str, ...]]
    layout: ClassVar[str]  # the expected tree, printed when something is missing
    bundled: ClassVar[bool] = False  # True: needs no folder

    @abstractmethod
    def recognizes(self, root: Path) -> bool:
        """Whether this folder looks like this data set's."""

    def lacking(self, root: Path) -> list[str]:
        """Which of the evaluated split's files and folders are not there."""
        return []

    @abstractmethod
    def samples(self, task: str, root: Path) -> list[Any]:
        """All evaluation samples; InputError for missing or malformed files."""

    def calibration(self, task: str, root: Path, count: int, seed: int) -> list[Any] | None:
        """`count` seeded samples of the training split whose pictures are there; None for none.

        Never reads a split that shares pictures with the evaluated one. With count 0 the answer,
        [] or None, tells whether there is a training split, and reading may stop as soon as
        that is known.
        """
        return None
