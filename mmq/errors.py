"""The error for invalid input, and exceptions that end work although nothing failed."""

import difflib
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T", bound=str)


class InputError(ValueError):
    """Invalid input; the message has the given value, the allowed ones and what to do next."""


class TakenOver(Exception):  # noqa: N818 - nothing is wrong
    """Another process has taken over this work: the run ends KILLED."""


class ShareDone(Exception):  # noqa: N818 - nothing is wrong
    """A worker has done its share of a study: the command that launched it reports the results."""


class TrialsFailed(RuntimeError):  # noqa: N818 - as TakenOver
    """Some trials of a study failed: the others are saved, and the same command retries those."""


class DryRun(Exception):  # noqa: N818 - nothing is wrong
    """A command with --dry-run ends here: the message is what it would have started."""


class TooLarge(Exception):  # noqa: N818 - nothing is wrong
    """The quantized model is larger than planned and allowed: the run ends KILLED."""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> InputError:
    """The error for a name that is not among the allowed ones, with near names first.

    >>> str(unknown("quantizer", "rnt", ["rtn", "uniform"]))
    "Unknown quantizer 'rnt'. Did you mean 'rtn'? Available: rtn, uniform."
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=2)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return InputError(f"Unknown {kind} {name!r}.{hint} Available: {', '.join(names) or 'none'}.")


def one_of(kind: str, name: str, allowed: Sequence[T]) -> T:
    """The allowed name that equals a text; InputError if there is none.

    >>> one_of("combine", "mean", ("worst", "mean"))
    'mean'
    """
    for option in allowed:
        if name == option:
            return option
    raise unknown(kind, name, allowed)
