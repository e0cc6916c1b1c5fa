"""The Pareto front of size against score, and its verdict in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mmq.errors import InputError, one_of

KEEP = 0.99  # share of the unquantized score that a verdict requires
AGREEMENT = "agreement"  # percent of answers that equal the unquantized model's: 100 - flips
SURE = 0.95  # probability from which a selection counts as certain
SizeAxis = Literal["stored", "nominal"]
SIZE_AXES: tuple[SizeAxis, ...] = ("stored", "nominal")
AXIS_LABELS = {
    "stored": "stored bits per weight over all parameters (bpw)",
    "nominal": "nominal bits per weight over all parameters (bpw)",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a model as an export target writes and runs it.

    target: its name, such as gguf. gib: of all its files. ms: one answer in its engine, None if
    files are compared. machine: what the answer was timed on.
    """

    target: str
    gib: float
    ms: float | None = None
    machine: str = ""

    @property
    def value(self) -> float:
        """The value that fronts compare."""
        return self.gib if self.ms is None else self.ms

    @property
    def unit(self) -> str:
        """The unit of `value`."""
        return f"GiB as {self.target}" if self.ms is None else f"ms per answer in {self.target}"

    @property
    def label(self) -> str:
        """The title of an axis."""
        if self.ms is None:
            return f"size of all {self.target} files (GiB)"
        return f"time per answer in {self.target} (ms), on {self.machine}"

    @property
    def text(self) -> str:
        """The cost in words, with the time if it is measured."""
        time = "" if self.ms is None else f", {self.ms:.4g} ms per answer"
        return f"{self.gib:.4g} GiB as {self.target}{time}"


@dataclass(frozen=True, slots=True)
class TaskScore:
    """A trial's score on one of several tasks. share: percent of the unquantized score."""

    label: str
    score: float
    low: float | None
    high: float | None
    share: float


@dataclass(frozen=True, slots=True)
class Point:
    """A trial on the size-score plane.

    bpw: nominal, unquantized weights at 16. stored_bpw: with scales, zero points and input scales;
    None if unknown. nominal: compare nominal sizes. cost: what is compared instead, if the search
    has an export target. tasks: the scores of a study of several tasks, of which `score` is the
    combination. flips: percent of the answers that differ from the unquantized model's, with their
    interval; None if unknown. objective: what `score` is: a score, or the agreement with the
    unquantized model's answers; task_score then has the name and the value of the task's score.
    """

    allocation: str
    bpw: float
    score: float
    low: float | None = None
    high: float | None = None
    stored_bpw: float | None = None
    run_id: str | None = None
    nominal: bool = False
    cost: Cost | None = None
    tasks: tuple[TaskScore, ...] = ()
    flips: tuple[float, float | None, float | None] | None = None
    objective: str = "score"
    task_score: tuple[str, float] | None = None

    @property
    def kept(self) -> str:
        """What a share of the unquantized model's value is a share of."""
        return "answers" if self.objective == AGREEMENT else "score"

    @property
    def binding(self) -> str:
        """The task that keeps the smallest share of its unquantized score; "" of one task."""
        return min(self.tasks, key=lambda task: task.share).label if self.tasks else ""

    @property
    def bounded_score(self) -> float:
        """The value that a bound on the score compares: of several tasks, the worst share."""
        return min((task.share for task in self.tasks), default=self.score)

    @property
    def size(self) -> float:
        """The size that fronts and verdicts compare: bits per weight, or the cost of a target."""
        return self.bits_per_weight if self.cost is None else self.cost.value

    @property
    def bits_per_weight(self) -> float:
        """Nominal or stored bits per weight, whichever are compared."""
        return self.bpw if self.nominal or self.stored_bpw is None else self.stored_bpw

    @property
    def size_text(self) -> str:
        """All sizes in words, the nominal one first."""
        stored = "" if self.stored_bpw is None else f", {self.stored_bpw:.3f} stored"
        cost = "" if self.cost is None else f", {self.cost.text}"
        return f"{self.bpw:.3f} bpw{stored}{cost}"

    @property
    def unit(self) -> str:
        """The unit of `size`."""
        if self.cost is not None:
            return self.cost.unit
        return "bpw" if self.nominal or self.stored_bpw is None else "stored bpw"

    @property
    def compared_text(self) -> str:
        """`size` with its unit."""
        digits = ".3f" if self.cost is None else ".4g"
        return f"{self.size:{digits}} {self.unit}"

    @property
    def is_unquantized(self) -> bool:
        """Whether no component is quantized."""
        return all(part.endswith("=16") for part in self.allocation.split())


def parse_axis(text: str) -> SizeAxis:
    """The size axis with this name; InputError if there is none."""
    return one_of("size-axis", text, SIZE_AXES)


def axis_of(points: Sequence[Point]) -> SizeAxis:
    """The axis on which these points are compared.

    InputError if only some have a stored size: a front would mix both axes.
    """
    nominal = {p.nominal or p.stored_bpw is None for p in points}
    if len(nominal) > 1:
        raise InputError(
            "size-axis: some of these trials have no stored size; use --size-axis nominal"
        )
    return "nominal" if nominal == {True} else "stored"


def axis_label(points: Sequence[Point]) -> str:
    """The title of the axis of these points' sizes; InputError if they are not comparable."""
    labels = {AXIS_LABELS[axis_of(points)] if p.cost is None else p.cost.label for p in points}
    if len(labels) > 1:
        raise InputError(f"points: they are on different axes: {', '.join(sorted(labels))}")
    return labels.pop() if labels else AXIS_LABELS["stored"]


def on_axis(points: Sequence[Point], axis: SizeAxis) -> list[Point]:
    """The same points, compared on this axis."""
    return [replace(point, nominal=axis == "nominal") for point in points]


def comparable(points: Sequence[Point]) -> list[Point]:
    """The same points on one axis: the nominal one if any stored size is unknown."""
    lacking = any(p.stored_bpw is None for p in points)
    return on_axis(points, "nominal") if lacking else list(points)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The non-dominated points, smallest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.size, -p.score)):
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


def baseline(points: Sequence[Point]) -> Point | None:
    """The unquantized model's point."""
    return next((p for p in points if p.is_unquantized), None)


def at_floor(point: Point, floor: float | None) -> bool:
    """Whether a score is not significantly above the lowest possible one."""
    return floor is not None and (point.score if point.low is None else point.low) <= floor


def smallest_keeping(
    points: Sequence[Point], share: float = KEEP, floor: float | None = None
) -> Point | None:
    """The smallest quantized point with at least this share of the unquantized score.

    floor: the lowest possible score, None if unknown; a point at the floor is never selected.
    """
    reference = baseline(points)
    if reference is None or reference.score == 0:
        return None
    least = reference.score * (share if reference.score > 0 else 2 - share)
    fitting = [
        p
        for p in points
        if not p.is_unquantized and p.bounded_score >= least and not at_floor(p, floor)
    ]
    return min(fitting, key=lambda p: (p.size, -p.score), default=None)


def size_metric(points: Sequence[Point]) -> str:
    """Name of the metric of a trial's run that `size` is logged as."""
    point = points[0] if points else None
    if point is None or point.cost is None:
        return "bpw" if point is not None and point.unit == "bpw" else "stored_bpw"
    return "size/target_gib" if point.cost.ms is None else "latency/ms"


def hypervolume(points: Sequence[Point], floor: float | None = None) -> float | None:
    """The area that the front dominates, as a share of what a model of size 0 would at no loss.

    Sizes count up to the unquantized model's and scores from the lowest possible one (`floor`; 0
    if unknown) to its score; better scores make it exceed 1. None without an unquantized model,
    or if that is at the floor.
    """
    if (reference := baseline(points)) is None:
        return None
    lowest = min(0.0, reference.score) if floor is None else floor
    if reference.score <= lowest or reference.size <= 0:
        return None
    front = [point for point in pareto_front(points) if point.size < reference.size]
    ends = [point.size for point in (*front[1:], reference)][: len(front)]
    area = sum(
        (end - point.size) * max(0.0, point.score - lowest)
        for point, end in zip(front, ends, strict=True)
    )
    return area / (reference.size * (reference.score - lowest))


def verdict(
    points: Sequence[Point], chance: float | None = None, floor: float | None = None
) -> str:
    """One line: the smallest model that keeps 99% of the score, as far as the samples show it.

    chance: that it does so on other pictures; None if unknown.
    """
    reference, smallest = baseline(points), smallest_keeping(points, floor=floor)
    if reference is None:
        return f"{len(points)} allocations evaluated; none of them unquantized (16 bits)"
    if reference.score == 0 or at_floor(reference, floor):
        return "the unquantized model scores at the floor, so no loss can be measured"
    if smallest is None:
        kept = f"{KEEP:.0%} of the {reference.kept}"
        return f"no quantized allocation of {len(points) - 1} keeps {kept}"
    size = f"{smallest.size:.3g} {smallest.unit}"
    if chance is None or chance >= SURE or reference.score < 0:
        return f"{size} keeps {KEEP:.0%} of the {smallest.kept}: {smallest.allocation}"
    share = f"{smallest.score / reference.score:.1%}"
    text = (
        f"keeps {share} of the answers"
        if smallest.objective == AGREEMENT
        else (f"scores {share} of unquantized")
    )
    return f"{size} {text}, too few samples to be sure of {KEEP:.0%}: {smallest.allocation}"
