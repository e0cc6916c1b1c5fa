"""The interface of data sets: samples from a folder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from mmq.contracts.samples import Sample
from mmq.errors import InputError

Choose = Callable[[Iterator[Sample]], list[Sample]]  # some of these samples, in their order


@dataclass(frozen=True, slots=True)
class Splits:
    """The names of a folder's splits: the one to score, and one to calibrate on, if any."""

    evaluation: str
    calibration: str | None = None


class Dataset(ABC):
    """Reads samples from a folder, or from a file. Implement `splits` and `read`.

    `root` is what --data names: a folder, or a file that `recognizes` accepts. mmq does the rest:
    it samples with a seed, checks ids and pictures, and excludes calibration pictures from the
    evaluation.
    """

    version: ClassVar[int] = 1  # raise it with every change that gives other samples
    tasks: ClassVar[tuple[str, ...]]
    layout: ClassVar[str]  # the expected tree, printed when something is missing
    needs: ClassVar[
        tuple[str, ...]
    ] = ()  # files that scoring needs, e.g. "test.json", "images/*.jpg"
    bundled: ClassVar[bool] = False  # True: needs no folder
    is_fallback: ClassVar[bool] = False  # True: used if no other data set recognizes the data

    @abstractmethod
    def splits(self, root: Path) -> Splits:
        """The splits in this folder, by the files that exist; does not read them.

        The calibration and evaluation splits must not share pictures.
        """

    @abstractmethod
    def read(self, root: Path, split: str) -> Iterator[Sample]:
        """The split's samples one by one, always in the same order.

        InputError for missing or malformed files, with the line or entry. Does not open pictures.
        """

    def select(self, root: Path, split: str, choose: Choose) -> list[Sample]:
        """The samples that `choose` picks from `read`.

        Override it to skip reading the texts of other samples; `choose` looks at pictures only.
        """
        return choose(self.read(root, split))

    def lacking(self, root: Path) -> list[str]:
        """Missing files and folders of the evaluation split; by default, of `needs`."""
        return [pattern for pattern in self.needs if not any(root.glob(pattern))]

    def recognizes(self, root: Path) -> bool:
        """Whether this folder looks like this data set's: by default, if all `needs` are there.

        A data set without `needs` is used only if --dataset names it.
        """
        return bool(self.needs) and not self.lacking(root)

    def texts(self, root: Path) -> Iterator[str] | None:
        """The texts of data without pictures, to calibrate on; None if the data has pictures.

        Not the split that is scored, if there is another. InputError for damaged files.
        """
        return None

    def with_fields(self, text: str) -> Self:
        """The data set with the columns that --fields names, e.g. "image=photo,answers=label".

        Override it if the columns can have any names.
        """
        raise InputError(
            f"fields: {type(self).__name__} reads files with fixed names; remove --fields, or "
            f"choose --dataset table"
        )

    def supports(self, task: str) -> bool:
        """Whether it has samples for a task, or for a variant such as lmms:chartqa."""
        return task.partition(":")[0] in self.tasks

    def for_task(self, task: str) -> Self:
        """The data set for a task; override it if tasks read different samples."""
        return self
