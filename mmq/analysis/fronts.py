"""The Pareto front of size against score, and what it says in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

KEEP = 0.99  # the share of the unquantized score that a verdict asks for


@dataclass(frozen=True, slots=True)
class Point:
    """A trial on the size-score plane."""

    allocation: str
    bpw: float
    score: float
    low: float | None = None
    high: float | None = None
    stored_bpw: float | None = None
    run_id: str | None = None

    @property
    def untouched(self) -> bool:
        """Whether no component is quantized."""
        return all(part.endswith("=16") for part in self.allocation.split())


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The non-dominated points, smallest first: nothing smaller or equal scores as well."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.bpw, -p.score)):
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


def baseline(points: Sequence[Point]) -> Point | None:
    """The unquantized model's point."""
    return next((p for p in points if p.untouched), None)


def smallest_keeping(points: Sequence[Point], share: float = KEEP) -> Point | None:
    """The smallest quantized point with at least this share of the unquantized score."""
    reference = baseline(points)
    if reference is None or reference.score <= 0:
        return None
    fitting = [p for p in points if not p.untouched and p.score >= share * reference.score]
    return min(fitting, key=lambda p: (p.bpw, -p.score), default=None)


def verdict(points: Sequence[Point]) -> str:
    """One line: the smallest model that keeps 99% of the score."""
    reference, chosen = baseline(points), smallest_keeping(points)
    if reference is None:
        return f"{len(points)} allocations evaluated; none of them unquantized (16 bits)"
    if reference.score <= 0:
        return "the unquantized model scores nothing: there is nothing to keep"
    if chosen is None:
        return f"no quantized allocation of {len(points) - 1} keeps {KEEP:.0%} of the score"
    return f"{chosen.bpw:.1f} bpw keeps {KEEP:.0%} of the score: {chosen.allocation}"
