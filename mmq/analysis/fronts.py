"""The Pareto front of size against score, and what it says in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mmq.errors import InputError, unknown

KEEP = 0.99  # the share of the unquantized score that a verdict asks for
SizeAxis = Literal["stored", "nominal"]
SIZE_AXES: tuple[SizeAxis, ...] = ("stored", "nominal")
SIZE_AXIS_HELP = "What sizes count: stored (scales, zero points and all) or nominal (bits alone)."
AXIS_LABELS = {
    "stored": "stored bits per weight over all parameters (bpw)",
    "nominal": "nominal bits per weight over all parameters (bpw)",
}


@dataclass(frozen=True, slots=True)
class Point:
    """A trial on the size-score plane.

    bpw: nominal, unquantized weights at 16. stored_bpw: with scales, zero points and input scales;
    None where that is not known. nominal: the nominal size counts.
    """

    allocation: str
    bpw: float
    score: float
    low: float | None = None
    high: float | None = None
    stored_bpw: float | None = None
    run_id: str | None = None
    nominal: bool = False

    @property
    def size(self) -> float:
        """The bits per weight that fronts, budgets and verdicts compare."""
        return self.bpw if self.nominal or self.stored_bpw is None else self.stored_bpw

    @property
    def size_text(self) -> str:
        """Both sizes in words, the one that counts first."""
        if self.stored_bpw is None:
            return f"{self.bpw:.3f} bpw"
        if self.nominal:
            return f"{self.bpw:.3f} bpw, {self.stored_bpw:.3f} stored"
        return f"{self.stored_bpw:.3f} bpw, {self.bpw:.3f} without scales"

    @property
    def untouched(self) -> bool:
        """Whether no component is quantized."""
        return all(part.endswith("=16") for part in self.allocation.split())


def parse_axis(text: str) -> SizeAxis:
    """The size axis of this name; InputError for another one."""
    for axis in SIZE_AXES:
        if text == axis:
            return axis
    raise unknown("size-axis", text, SIZE_AXES)


def axis_of(points: Sequence[Point]) -> SizeAxis:
    """The one axis that these points are compared on.

    InputError where some have a stored size and some have none: a front would mix both.
    """
    nominal = {p.nominal or p.stored_bpw is None for p in points}
    if len(nominal) > 1:
        raise InputError(
            "size-axis: some of these trials have no stored size; compare them with nominal"
        )
    return "nominal" if nominal == {True} else "stored"


def on_axis(points: Sequence[Point], axis: SizeAxis) -> list[Point]:
    """The same points, compared on this axis."""
    return [replace(point, nominal=axis == "nominal") for point in points]


def comparable(points: Sequence[Point]) -> list[Point]:
    """The same points on one axis: the nominal one where a stored size is not known."""
    lacking = any(p.stored_bpw is None for p in points)
    return on_axis(points, "nominal") if lacking else list(points)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The non-dominated points, smallest first: nothing smaller or equal scores as well."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.size, -p.score)):
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


def baseline(points: Sequence[Point]) -> Point | None:
    """The unquantized model's point."""
    return next((p for p in points if p.untouched), None)
