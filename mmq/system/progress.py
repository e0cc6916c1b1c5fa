"""The verbosity of a command: progress bars on a terminal, lines in a file."""

import logging
import sys
from collections.abc import Iterable
from enum import Enum
from typing import Any


class Verbosity(Enum):
    """Only the result; progress, too; or each step. The value is the level that is logged."""

    QUIET = logging.ERROR
    NORMAL = logging.WARNING
    VERBOSE = logging.INFO

    @property
    def logged(self) -> int:
        """The lowest level of `logging` that is printed."""
        return self.value


_verbosity = Verbosity.NORMAL


def set_verbosity(verbosity: Verbosity) -> None:
    """Choose what this process reports from now on."""
    global _verbosity
    _verbosity = verbosity


def is_quiet() -> bool:
    """Whether only the result is printed."""
    return _verbosity is Verbosity.QUIET


def has_bars() -> bool:
    """Whether progress bars are shown: a file would get their control characters."""
    return not is_quiet() and sys.stderr.isatty()


def progress_bar(items: Iterable[Any] | None = None, quiet: bool = False, **options: Any) -> Any:
    """A tqdm bar over items; it shows nothing in a file, with -q or with `quiet`."""
    from tqdm import tqdm

    return tqdm(items, disable=quiet or not has_bars(), **options)


def notify(text: str, important: bool = False) -> None:
    """Print a line about the work on the standard error, above the bar if there is one.

    An empty one sets a result apart on a terminal; the result in a file has no empty first line.
    important: with -q, too.
    """
    if is_quiet() and not important:
        return
    if not has_bars():
        print(text, file=sys.stderr, flush=True)
        return
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)
