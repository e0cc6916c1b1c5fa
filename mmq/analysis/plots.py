"""Figures of a front: static (PNG) and interactive (HTML that works offline)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmq.analysis import theme
from mmq.analysis.fronts import Point, axis_label, baseline, pareto_front
from mmq.analysis.selection import Selection
from mmq.analysis.theme import CHOSEN, FRONT, INK, MUTED

MARKS = ("*", "D")  # of the first selection and of the second
SYMBOLS = ("star", "diamond")  # the same in plotly
FORBIDDEN = 0.12  # opacity


@dataclass(frozen=True, slots=True)
class Highlights:
    """What a figure shows in addition to the front: the bounds of the budget and the selections.

    most: the largest size, in `unit`, least: the lowest score; None: unbounded.
    """

    selections: Sequence[Selection] = field(default=())
    most: float | None = None
    least: float | None = None
    unit: str = "bpw"

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
        return f"{criteria}:\n{point.compared_text}, {point.allocation}"


def front_figure(
    points: Sequence[Point], score_name: str, title: str, highlights: Highlights | None = None
) -> Any:
    """A matplotlib figure: all trials, the front with 95% intervals, bounds and selections."""
    from matplotlib.figure import Figure

    highlights = highlights or Highlights()
    figure = Figure(figsize=(8, 5.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
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
        yerr=_errors(front),
        color=FRONT,
        ecolor=FRONT,
        elinewidth=1,
        capsize=2,
        marker="o",
        markersize=5,
        linewidth=1.8,
        label=f"front ({len(front)}), 95% interval",
    )
    if (reference := baseline(points)) is not None:
        axes.axhline(reference.score, color=MUTED, linewidth=1, linestyle="--")
        axes.annotate(
            f"unquantized: {reference.score:.3g}",
            (0.99, reference.score),
            xycoords=("axes fraction", "data"),
            xytext=(0, 5),
            ha="right",
            textcoords="offset points",
            color=INK,
            fontsize=9,
        )
    _draw_bounds(axes, highlights)
    for (_, point), mark in zip(highlights.marked, MARKS, strict=False):
        axes.scatter(
            [point.size], [point.score], marker=mark, s=220 if mark == "*" else 90, color=CHOSEN,
            zorder=5, label=highlights.label(point),
        )  # fmt: skip
    axes.set_xlabel(axis_label(points))
    axes.set_ylabel(score_name)
    axes.set_title(title, loc="left", fontsize=10, color=INK, wrap=True)
    axes.legend(loc="lower right", frameon=True, framealpha=0.85, edgecolor="none", fontsize=9)
    theme.tidy(axes)
    return figure


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


def _errors(points: Sequence[Point]) -> list[list[float]]:
    return theme.errors(
        [p.score for p in points], [p.low for p in points], [p.high for p in points]
    )


def front_plot(
    points: Sequence[Point], score_name: str, title: str, highlights: Highlights | None = None
) -> Any:
    """The same as a plotly figure: hovering a point shows its allocation."""
    import plotly.graph_objects as go

    highlights = highlights or Highlights()
    front = pareto_front(points)
    lower, upper = _errors(front)
    hover = f"%{{text}}<br>{_hovered_size(points)}, score %{{y:.4g}}"
    plot = go.Figure()
    plot.add_scatter(
        x=[p.size for p in points],
        y=[p.score for p in points],
        mode="markers",
        name=f"trials ({len(points)})",
        marker={"color": MUTED, "size": 8, "symbol": "circle-open"},
        text=[p.allocation for p in points],
        hovertemplate=f"{hover}<extra></extra>",
    )
    plot.add_scatter(
        x=[p.size for p in front],
        y=[p.score for p in front],
        error_y={"array": upper, "arrayminus": lower, "thickness": 1, "width": 3},
        mode="lines+markers",
        name=f"front ({len(front)}), 95% interval",
        line={"color": FRONT, "width": 2},
        text=[p.allocation for p in front],
        hovertemplate=f"{hover}<extra>front</extra>",
    )
    if (reference := baseline(points)) is not None:
        plot.add_hline(
            reference.score,
            line={"color": MUTED, "dash": "dash", "width": 1},
            annotation_text=f"unquantized: {reference.score:.3g}",
            annotation_position="bottom right",
        )
    _add_bounds(plot, points, highlights)
    for (_, point), symbol in zip(highlights.marked, SYMBOLS, strict=False):
        plot.add_scatter(
            x=[point.size],
            y=[point.score],
            mode="markers",
            name=highlights.label(point).replace("\n", " "),
            marker={"color": CHOSEN, "size": 16, "symbol": symbol},
            hoverinfo="skip",
        )
    plot.update_layout(
        title=title,
        xaxis_title=axis_label(points),
        yaxis_title=score_name,
        template="plotly_white",
        legend={"x": 0.99, "y": 0.02, "xanchor": "right", "yanchor": "bottom"},
    )
    return plot


def _hovered_size(points: Sequence[Point]) -> str:
    """A template of plotly for a size with its unit."""
    cost = points[0].cost if points else None
    return "%{x:.3f} bpw" if cost is None else f"%{{x:.4g}} {cost.unit}"


def _add_bounds(plot: Any, points: Sequence[Point], highlights: Highlights) -> None:
    """Draw a line at each bound and shade the area beyond it."""
    line = {"color": CHOSEN, "dash": "dot", "width": 1.5}
    shade = {"fillcolor": CHOSEN, "opacity": FORBIDDEN, "line_width": 0, "layer": "below"}
    if highlights.most is not None:
        end = max([p.size for p in points] + [highlights.most]) * 1.05
        plot.add_vline(
            highlights.most,
            line=line,
            annotation_text=f"at most {highlights.most:.4g} {highlights.unit}",
        )
        plot.add_vrect(highlights.most, end, **shade)
    if highlights.least is not None:
        lows = [p.score if p.low is None else min(p.low, p.score) for p in points]
        least = min([*lows, highlights.least])
        end = least - 0.05 * (max(p.score for p in points) - least)
        plot.add_hline(
            highlights.least,
            line=line,
            annotation_text=f"at least {highlights.least:.4g}",
            annotation_position="top left",
        )
        plot.add_hrect(end, highlights.least, **shade)
