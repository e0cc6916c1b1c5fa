"""The front of score against measured latency, next to that of score against bytes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from mmq.analysis import theme
from mmq.analysis.theme import FRONT, INK, MUTED
from mmq.system.wording import counted

MIB = 2**20
PREFIX = "measured"  # of a trial's metrics, tags and figures


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

    @classmethod
    def of(
        cls,
        allocation: str,
        score: float,
        low: float | None,
        high: float | None,
        metrics: Mapping[str, float],
        target: str,
    ) -> "MeasuredPoint":
        """From the metrics of a trial's run, which `mmq measure` logged."""
        prefix = f"{PREFIX}/{target}"
        return cls(
            allocation,
            score,
            low,
            high,
            file_bytes=metrics[f"{prefix}/file_bytes"],
            seconds=metrics[f"{prefix}/answer_seconds"],
            least=metrics[f"{prefix}/answer_seconds_low"],
            most=metrics[f"{prefix}/answer_seconds_high"],
            ratio=metrics.get(f"{prefix}/ratio/answer_seconds"),
            ratio_least=metrics.get(f"{prefix}/ratio/answer_seconds_low"),
            ratio_most=metrics.get(f"{prefix}/ratio/answer_seconds_high"),
        )


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


def heading(subject: str, points: Sequence[MeasuredPoint], setting: str) -> str:
    """The title of a figure of measured trials."""
    return f"{subject}: {counted(len(points), 'measured trial')}\n{setting}"


def measured_figure(
    points: Sequence[MeasuredPoint], score_name: str, title: str, unquantized: float | None = None
) -> Any:
    """A matplotlib figure with two panels: score against bytes, and against time per answer.

    unquantized: the score of the unquantized model.
    """
    figure, (sizes, times) = theme.panels(2, title, width=5.2, height=5)
    label, median, least, most = latency(points)

    def size(point: MeasuredPoint) -> float:
        return point.file_bytes / MIB

    best = {id(p): p for cost in (size, median) for p in front(points, cost)}
    numbers = {key: str(number) for number, key in enumerate(best, start=1)}
    for panel in (sizes, times):
        if unquantized is not None:
            theme.reference_line(panel, unquantized)
        theme.tidy(panel)
    _draw(sizes, points, numbers, size)
    _draw(times, points, numbers, median, (least, most))
    sizes.set_xlabel("exported files (MiB)")
    times.set_xlabel(label)
    sizes.set_ylabel(score_name)
    names = {number: best[key].allocation for key, number in numbers.items()}
    _legend(figure, times, names)
    return figure


def _legend(figure: Any, panel: Any, names: Mapping[str, str]) -> None:
    """The marks of a panel, then the allocations of the fronts by number."""
    from matplotlib.lines import Line2D

    handles, _ = panel.get_legend_handles_labels()
    handles += [
        Line2D(
            [], [], color=INK, linestyle="", marker=f"${number}$",
            label=fill(name, 60, break_on_hyphens=False),
        )
        for number, name in names.items()
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=9,
        handlelength=3, alignment="left",
    )  # fmt: skip


def _draw(
    panel: Any,
    points: Sequence[MeasuredPoint],
    numbers: Mapping[int, str],
    cost: Axis,
    spread: tuple[Axis, Axis] | None = None,
) -> None:
    """All points with their intervals, and the front through the best of them, with numbers."""
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
        label=f"measured trials ({len(points)}), 95% intervals; ranges of time",
    )  # fmt: skip
    best = front(points, cost)
    panel.plot(
        [cost(p) for p in best], [p.score for p in best], color=FRONT, marker="o", markersize=5,
        linewidth=1.8, label="front",
    )  # fmt: skip
    for point in best:
        panel.annotate(
            numbers[id(point)], (cost(point), point.score), xytext=(5, -12),
            textcoords="offset points", fontsize=9, color=INK,
        )  # fmt: skip
    panel.margins(0.12)
