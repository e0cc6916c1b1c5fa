"""When a search stops starting trials."""

import re
import time
from dataclasses import dataclass, field

from mmq.errors import InputError

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Deadline:
    """A time limit that starts now. seconds: None for no limit."""

    seconds: float | None
    start: float = field(default_factory=time.monotonic)

    @classmethod
    def parse(cls, text: str) -> "Deadline":
        """From "5400", "90m" or "1.5h"; empty for no limit. InputError for anything else."""
        if not text:
            return cls(None)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
        if match is None or not float(match[1]):
            raise InputError(
                f"timeout: {text!r} is not a duration; write it like 5400 (seconds), 90m or 8h"
            )
        return cls(float(match[1]) * UNITS[match[2]])

    def no_later(self, until: float | None) -> "Deadline":
        """The earlier of this deadline and a time in seconds since the epoch, if there is one."""
        if until is None:
            return self
        seconds = max(0.0, until - time.time())
        return self if self.left is not None and self.left <= seconds else Deadline(seconds)

    @property
    def left(self) -> float | None:
        """Seconds left; None without a limit."""
        if self.seconds is None:
            return None
        return max(0.0, self.start + self.seconds - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return self.left == 0

    @property
    def until(self) -> float | None:
        """The end in seconds since the epoch; None without a limit."""
        return None if self.left is None else time.time() + self.left


def in_words(seconds: float) -> str:
    """A duration for the screen.

    >>> in_words(42), in_words(312), in_words(7600)
    ('42 s', '5 min', '2 h 7 min')
    """
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
