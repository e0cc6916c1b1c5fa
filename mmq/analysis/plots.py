"""The static figure of a front: an overview and, if the scores have one, the plateau enlarged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from mmq.allocation.rules import FITTED
from mmq.allocation.widths_list import brief_text
from mmq.analysis import theme
from mmq.analysis.fronts import Point, axis_label, baseline, pareto_front
from mmq.analysis.plateau import MIN_PLATEAU, PLATEAU, enlarge, plateau
from mmq.analysis.selection import Selection
from mmq.analysis.theme import CHOSEN, FRONT, INK, MUTED

MARKS = ("*", "D")  # markers of the first and the second selection
RULE_MARKS = ("^", "s", "v", "P", "X", "<", ">")
FORBIDDEN = 0.12  # opacity
LEGEND = 50  # characters that fit in one of two columns
FAR = 2  # ranges of the quantized trials' sizes; an unquantized model farther away is not shown
MARGIN = 0.06  # share of that range to leave free on the left; twice as much on the right


@dataclass(frozen=True, slots=True)
class Highlights:
    """The parts of a figure besides the front: bounds, selections and rules of thumb.

    most: the largest size, in `unit`, least: the lowest score; None: unbounded. rules: trials by
    the rule of thumb that names them, such as "uniform 4".
    """

    selections: Sequence[Selection] = field(default=())
    most: float | None = None
    least: float | None = None
    unit: str = "bpw"
    rules: Mapping[str, Point] = field(default_factory=dict)

    @property
    def marked(self) -> list[tuple[Selection, Point]]:
        """The selections with a point, and their points, each point once."""
        marked: dict[str, tuple[Selection, Point]] = {}
        for selection in self.selections:
            if selection.point is not None:
                marked.setdefault(selection.point.allocation, (selection, selection.point))
        return list(marked.values())

    def label(self, point: Point) -> str:
        """The legend of a point: the criteria by which it was selected."""
        criteria = ",\n".join(s.criterion for s in self.selections if s.point == point)
        name = brief_text(point.allocation)
        return f"{criteria}:\n{point.compared_text}, {name}"

    @property
    def rule_groups(self) -> dict[str, list[Point]]:
        """Points by rule; rules that differ only in their last width are one: "uniform 3, 4"."""
        groups: dict[tuple[str, str], tuple[list[str], list[Point]]] = {}
        for name, point in self.rules.items():
            suffix = FITTED if name.endswith(FITTED) else ""
            stem, _, bits = name.removesuffix(FITTED).rpartition(" ")
            key = (stem, suffix) if bits.isdigit() else (name, "")
            widths, points = groups.setdefault(key, ([], []))
            widths += [bits] if bits.isdigit() else []
            points.append(point)
        return {
            f"{stem} {', '.join(sorted(widths, key=int))}".strip() + suffix: points
            for (stem, suffix), (widths, points) in groups.items()
        }


def uniform_rules(points: Sequence[Point]) -> dict[str, Point]:
    """Trials with one width for all parts, by name: "uniform 4"; without the unquantized one."""
    rules = {}
    for point in points:
        widths = {part.rpartition("=")[2] for part in point.allocation.split()}
        if len(widths) == 1 and " " in point.allocation and not point.is_unquantized:
            rules[f"uniform {widths.pop()}"] = point
    return rules


def front_figure(
    points: Sequence[Point], score_name: str, title: str, highlights: Highlights | None = None
) -> Any:
    """A matplotlib figure: all trials, the front with 95% intervals, bounds and selections.

    If most scores are on a plateau that an axis of all scores cannot resolve, an upper panel
    enlarges it.
    """
    from matplotlib.figure import Figure

    highlights = highlights or Highlights()
    near = plateau([point.score for point in points])
    figure = Figure(figsize=(8, 5.6 if near is None else 7.4), dpi=150, layout="constrained")
    ratios = [1] if near is None else [3, 2]
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)
    column = [row[0] for row in panels]
    ends = size_range(points, highlights.most)
    for panel in column:
        _draw(panel, points, highlights, beyond=ends is not None)
        if ends is not None:
            panel.set_xlim(*ends)
        panel.set_ylabel(score_name)
        theme.tidy(panel)
    if near is not None:
        _enlarge(column[0], column[1], points, near)
    column[-1].set_xlabel(axis_label(points))
    theme.heading(figure, title)
    handles, labels = column[-1].get_legend_handles_labels()
    figure.legend(
        handles, [theme.wrapped(label, LEGEND) for label in labels], loc="outside lower left",
        ncols=2, frameon=False, fontsize=9,
    )  # fmt: skip
    return figure


def _enlarge(upper: Any, lower: Any, points: Sequence[Point], near: tuple[float, float]) -> None:
    """Limit the upper panel to the plateau, and mark in the lower one what it shows."""
    reference = baseline(points)
    enlarge([upper], [lower], near, None if reference is None else reference.score)
    upper.set_title(
        f"enlarged: scores from {PLATEAU:.0%} of the best (intervals may exceed the panel)",
        fontsize=9, loc="left", color=INK,
    )  # fmt: skip
    lower.set_title("all scores; box: what is enlarged", fontsize=9, loc="left", color=INK)


def size_range(points: Sequence[Point], most: float | None) -> tuple[float, float] | None:
    """The sizes to show if the unquantized model is so far that it would squeeze the others.

    most: the bound on the size, which is shown, too. None: show all.
    """
    reference = baseline(points)
    sizes = [p.size for p in points if not p.is_unquantized]
    if reference is None or len(sizes) < MIN_PLATEAU:
        return None
    low, high = min(sizes), max([*sizes, *([] if most is None else [most])])
    span = high - low
    if reference.size - high <= FAR * span:
        return None
    return low - MARGIN * span, high + 2 * MARGIN * span


def _draw(
    axes: Any, points: Sequence[Point], highlights: Highlights, beyond: bool = False
) -> None:
    """Everything in one panel. beyond: the unquantized model is right of it."""
    front = pareto_front(points)
    axes.scatter(
        [p.size for p in points],
        [p.score for p in points],
        s=22,
        facecolors="none",
        edgecolors=MUTED,
        label=f"trials ({len(points)})",
    )
    axes.errorbar(
        [p.size for p in front],
        [p.score for p in front],
        yerr=errors(front),
        color=FRONT,
        ecolor=FRONT,
        elinewidth=1,
        capsize=2,
        marker="o",
        markersize=5,
        linewidth=1.8,
        label=f"front ({len(front)}), 95% interval",
    )
    for (name, rule), mark in zip(highlights.rule_groups.items(), cycle(RULE_MARKS)):
        axes.scatter(
            [p.size for p in rule], [p.score for p in rule], marker=mark, s=46,
            facecolors="none", edgecolors=INK, linewidths=1.2, zorder=4,
            label=f"rule of thumb: {name}",
        )  # fmt: skip
    if (reference := baseline(points)) is not None:
        where = f" ({reference.compared_text}, not shown)" if beyond else ""
        axes.axhline(
            reference.score, color=INK, linewidth=1, linestyle="--",
            label=f"unquantized: {reference.score:.4g}{where}",
        )  # fmt: skip
    _draw_bounds(axes, highlights)
    for (_, point), mark in zip(highlights.marked, MARKS, strict=False):
        axes.scatter(
            [point.size], [point.score], marker=mark, s=220 if mark == "*" else 90, color=CHOSEN,
            edgecolors="white", zorder=5, label=highlights.label(point),
        )  # fmt: skip


def _draw_bounds(axes: Any, highlights: Highlights) -> None:
    """Draw a line at each bound and shade the area beyond it."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    look = {"color": CHOSEN, "linewidth": 1.2, "linestyle": ":"}
    if highlights.most is not None:
        right = max(right, highlights.most + 0.05 * (right - left))
        left = min(left, highlights.most - 0.05 * (right - left))
        axes.axvline(
            highlights.most, label=f"at most {highlights.most:.4g} {highlights.unit}", **look
        )
        axes.axvspan(highlights.most, right, color=CHOSEN, alpha=FORBIDDEN, linewidth=0)
    if highlights.least is not None:
        bottom = min(bottom, highlights.least - 0.05 * (top - bottom))
        top = max(top, highlights.least + 0.05 * (top - bottom))
        axes.axhline(highlights.least, label=f"at least {highlights.least:.4g}", **look)
        axes.axhspan(bottom, highlights.least, color=CHOSEN, alpha=FORBIDDEN, linewidth=0)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def errors(points: Sequence[Point]) -> list[list[float]]:
    """Lengths of the points' error bars, below and above."""
    return theme.errors(
        [p.score for p in points], [p.low for p in points], [p.high for p in points]
    )
