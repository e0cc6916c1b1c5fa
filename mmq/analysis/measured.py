"""The front of score against measured latency, next to that of score against bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmq.analysis import theme
from mmq.analysis.theme import FRONT, INK, MUTED

MIB = 2**20


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """A trial whose exported model was measured.

    seconds, least, most: of an answer, median and range. ratio, ratio_least, ratio_most: the same
    as a share of the unquantized model's, which took turns with it; None if it was not measured.
    """

    allocation: str
    score: float
    low: float | None
    high: float | None
    file_bytes: float
    seconds: float
    least: float
    most: float
    ratio: float | None = None
    ratio_least: float | None = None
    ratio_most: float | None = None


Axis = Callable[[MeasuredPoint], float]


def latency(points: Sequence[MeasuredPoint]) -> tuple[str, Axis, Axis, Axis]:
    """The label of the latency, and its median, least and greatest value of a point.

    Shares of the unquantized model's time, if all points have them: seconds of runs at different
    moments compare badly.
    """
    if all(point.ratio is not None for point in points):
        return (
            "time per answer, as a share of the unquantized model's",
            lambda p: p.ratio or 0.0,
            lambda p: p.ratio_least or 0.0,
            lambda p: p.ratio_most or 0.0,
        )
    return "seconds per answer", lambda p: p.seconds, lambda p: p.least, lambda p: p.most


def front(points: Sequence[MeasuredPoint], cost: Axis) -> list[MeasuredPoint]:
    """The non-dominated points of score against a cost, cheapest first."""
    result: list[MeasuredPoint] = []
    for point in sorted(points, key=lambda p: (cost(p), -p.score)):
        if not result or point.score > result[-1].score:
            result.append(point)
    return result


def measured_figure(
    points: Sequence[MeasuredPoint], score_name: str, title: str, unquantized: float | None = None
) -> Any:
    """A matplotlib figure with two panels: score against bytes, and against time per answer.

    unquantized: the score of the unquantized model.
    """
    figure, (sizes, times) = theme.panels(2, title, width=5.2, height=4.6)
    label, median, least, most = latency(points)
    _draw(sizes, points, lambda p: p.file_bytes / MIB)
    _draw(times, points, median, (least, most))
    sizes.set_xlabel("exported files (MiB)")
    times.set_xlabel(label)
    sizes.set_ylabel(score_name)
    for panel in (sizes, times):
        if unquantized is not None:
            panel.axhline(
                unquantized, color=MUTED, linewidth=1, linestyle="--",
                label=f"unquantized: {unquantized:.3g}",
            )  # fmt: skip
        theme.tidy(panel)
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False)
    return figure


def _draw(
    panel: Any,
    points: Sequence[MeasuredPoint],
    cost: Axis,
    spread: tuple[Axis, Axis] | None = None,
) -> None:
    """All points with their intervals, and the front through the best of them."""
    xerr = None
    if spread is not None:
        least, most = spread
        xerr = [[cost(p) - least(p) for p in points], [most(p) - cost(p) for p in points]]
    yerr = theme.errors(
        [p.score for p in points], [p.low for p in points], [p.high for p in points]
    )
    panel.errorbar(
        [cost(p) for p in points], [p.score for p in points], xerr=xerr, yerr=yerr, fmt="o",
        markersize=5, markerfacecolor="none", color=MUTED, elinewidth=0.8, capsize=2,
        label=f"measured trials ({len(points)})",
    )  # fmt: skip
    best = front(points, cost)
    panel.plot(
        [cost(p) for p in best], [p.score for p in best], color=FRONT, marker="o", markersize=5,
        linewidth=1.8, label=f"front ({len(best)})",
    )  # fmt: skip
    for point in best:
        panel.annotate(
            point.allocation, (cost(point), point.score), xytext=(4, -10),
            textcoords="offset points", fontsize=7, color=INK,
        )  # fmt: skip
    panel.margins(0.12)
