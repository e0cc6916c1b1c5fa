"""Bounds on the size and the score of a selection."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmq.analysis.fronts import Point, baseline
from mmq.errors import InputError
from mmq.system.disk import BITS_PER_GIB

NAMES = {  # command option by bound
    "max_bpw": "max-bpw", "max_gib": "max-size-gib", "max_ms": "max-latency-ms",
    "max_drop": "max-drop", "max_flips": "max-flips",
}  # fmt: skip

FORMS = {  # what to write, by command option
    "max-bpw": "a number of bits per weight; write e.g. 4.5",
    "max-size-gib": "a number of GiB; write e.g. 1.5",
    "max-latency-ms": "a number of milliseconds; write e.g. 800",
    "min-score": "a score; write e.g. 75, or --max-drop 1% for 99% of the unquantized score",
    "max-drop": "1% or 0.5",
    "max-flips": "a percentage; write e.g. 2%",
}


@dataclass(frozen=True, slots=True)
class Budget:
    """The bounds of a selection; None: unbounded.

    max_bpw: nominal or stored, as points are compared. max_gib: stored size in GiB, of the files
    if there is an export target. max_ms: of an answer in its engine. max_drop: below
    the unquantized score, in the score's units, or as a share of it if `relative`. max_flips:
    percent of the answers that may differ from the unquantized model's. of_flips: the score is
    the agreement with the unquantized model's answers, so that a drop of it is a share of flips.
    """

    max_bpw: float | None = None
    max_gib: float | None = None
    min_score: float | None = None
    max_drop: float | None = None
    relative: bool = False
    max_ms: float | None = None
    max_flips: float | None = None
    of_flips: bool = False

    def __post_init__(self) -> None:
        if self.min_score is not None and self.max_drop is not None:
            raise InputError("min-score, max-drop: give one of them, not both")
        for name, option in NAMES.items():
            value = getattr(self, name)
            if value is not None and not value > 0:
                hint = ""
                if name == "max_drop" and value == 0:
                    hint = (
                        "; no number of samples can show a loss of 0. Give a small one, such as "
                        "0.5%, or --min-score"
                    )
                raise InputError(f"{option}: {value} is not above 0{hint}")

    @classmethod
    def parse(
        cls,
        max_bpw: str = "",
        max_gib: str = "",
        min_score: str = "",
        max_drop: str = "",
        max_ms: str = "",
        max_flips: str = "",
    ) -> "Budget":
        """From command options, "" for none; a drop is a percentage or a number (1%, 0.5)."""
        percent = max_drop.endswith("%")
        drop = _number("max-drop", max_drop.removesuffix("%") if max_drop != "%" else max_drop)
        if percent and drop is not None and drop >= 100:
            more = "more than all" if drop > 100 else "all"
            raise InputError(
                f"max-drop: {max_drop} is {more} of the score, which any model satisfies; give a "
                f"smaller one, such as 1%"
            )
        return cls(
            _number("max-bpw", max_bpw),
            _number("max-size-gib", max_gib),
            _number("min-score", min_score),
            drop / 100 if drop is not None and percent else drop,
            percent,
            _number("max-latency-ms", max_ms),
            _percentage("max-flips", max_flips),
        )

    def for_flips(self) -> "Budget":
        """The same bounds for a search that maximizes the agreement of answers.

        A bound on the flips is its bound on the score. InputError for bounds on a task's score.
        """
        if self.scored:
            raise InputError(
                "min-score, max-drop: a search with --objective flips does not compare scores; "
                "bound the flips, such as --max-flips 2%"
            )
        drop = None if self.max_flips is None else self.max_flips / 100
        return replace(
            self, max_drop=drop, relative=drop is not None, max_flips=None, of_flips=True
        )

    @property
    def sized(self) -> bool:
        """Whether a size or a latency is bounded."""
        return any(bound is not None for bound in (self.max_bpw, self.max_gib, self.max_ms))

    def keeps_answers(self, point: Point) -> bool:
        """Whether a point's flips are within the bound; unknown ones are not."""
        if self.max_flips is None or point.is_unquantized:
            return True
        return point.flips is not None and point.flips[0] <= self.max_flips

    @property
    def flips_text(self) -> str:
        """The bound of the flips in words, with a space before it; "" if there is none."""
        return "" if self.max_flips is None else f" with at most {self.max_flips:g}% flips"

    @property
    def is_share(self) -> bool:
        """Whether a drop is a share of the unquantized score, or unbounded."""
        return self.relative or self.max_drop is None

    @property
    def scored(self) -> bool:
        """Whether the score is bounded."""
        return self.min_score is not None or self.max_drop is not None

    def least_score(self, points: Sequence[Point]) -> float | None:
        """The lowest score within the budget; None if it is unbounded or still unknown."""
        return self.least_of(baseline(points))

    def least_of(self, reference: Point | None) -> float | None:
        """The same, from the unquantized model's point."""
        if self.min_score is not None or self.max_drop is None or reference is None:
            return self.min_score
        return float(self.below(np.asarray(reference.score)))

    def below(self, reference: np.ndarray) -> np.ndarray:
        """The lowest allowed scores for these reference scores."""
        assert self.max_drop is not None
        if not self.relative:
            return reference - self.max_drop
        return np.asarray(
            reference * np.where(reference > 0, 1 - self.max_drop, 1 + self.max_drop)
        )

    def drop_share(self, reference: float) -> tuple[float, str] | None:
        """The allowed drop as a share of a score above 0, and in words."""
        if self.max_drop is None:
            return None
        share = self.max_drop if self.relative else self.max_drop / reference
        return share, self.drop_text

    def fits(self, point: Point, parameters: int) -> bool:
        """Whether a point's size is within the bounds; parameters: of the model."""
        gib = stored_gib(point, parameters)
        ms = None if point.cost is None else point.cost.ms
        return (
            (self.max_bpw is None or point.bits_per_weight <= self.max_bpw)
            and (self.max_gib is None or (gib is not None and gib <= self.max_gib))
            and (self.max_ms is None or (ms is not None and ms <= self.max_ms))
        )

    def stretched(self, share: float) -> "Budget":
        """The same bounds with those of the size and the latency larger by a share."""
        bounds = (self.max_bpw, self.max_gib, self.max_ms)
        bpw, gib, ms = (None if bound is None else bound * (1 + share) for bound in bounds)
        return replace(self, max_bpw=bpw, max_gib=gib, max_ms=ms)

    def largest(self, point: Point, parameters: int) -> float | None:
        """The bound of what is compared, on the axis of a point; None for no bound.

        GiB are stored bits and do not bound a nominal size.
        """
        if point.cost is not None:
            return self.max_gib if point.cost.ms is None else self.max_ms
        nominal = point.nominal
        bounds = [] if self.max_bpw is None else [self.max_bpw]
        if self.max_gib is not None and not nominal and parameters:
            bounds.append(self.max_gib * BITS_PER_GIB / parameters)
        return min(bounds, default=None)

    @property
    def size_text(self) -> str:
        """The bounds of the size in words."""
        bounds = {"bpw": self.max_bpw, "GiB": self.max_gib, "ms": self.max_ms}
        return " and ".join(f"{v:g} {unit}" for unit, v in bounds.items() if v is not None)

    @property
    def drop_text(self) -> str:
        """The drop in words."""
        assert self.max_drop is not None
        if self.of_flips:
            return f"{100 * self.max_drop:g}% flips"
        return f"{100 * self.max_drop:g}%" if self.relative else f"{self.max_drop:g} of the score"

    @property
    def score_text(self) -> str:
        """The bound of the score in words."""
        if self.min_score is not None:
            return f"with a score of {self.min_score:g}"
        return f"within {self.drop_text}"


def stored_gib(point: Point, parameters: int) -> float | None:
    """A point's stored size in GiB, of the files of a target; parameters: of the model."""
    if point.cost is not None:
        return point.cost.gib
    return None if point.stored_bpw is None else point.stored_bpw * parameters / BITS_PER_GIB


def _percentage(name: str, text: str) -> float | None:
    """The number of a percentage, None for ""; InputError for another text."""
    if not text:
        return None
    value = _number(name, text.removesuffix("%").strip() or text) if text.endswith("%") else None
    if value is None or value >= 100:
        raise InputError(f"{name}: {text!r} is not a percentage below 100%; write e.g. 2%")
    return value


def _number(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name}: {text!r} is not {FORMS[name]}")
    return number
