"""Figures of a front: one for reports (PNG), one to explore (HTML, works offline)."""

from collections.abc import Sequence
from typing import Any

from mmq.analysis import theme
from mmq.analysis.fronts import KEEP, Point, baseline, pareto_front, smallest_keeping
from mmq.analysis.theme import CHOSEN, FRONT, INK, MUTED


def front_figure(points: Sequence[Point], score_name: str, title: str) -> Any:
    """A matplotlib figure: every trial, the front with 95% intervals, the chosen point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    front = pareto_front(points)
    axes.scatter(
        [p.bpw for p in points],
        [p.score for p in points],
        s=22,
        facecolors="none",
        edgecolors=MUTED,
        label=f"trials ({len(points)})",
    )
    axes.errorbar(
        [p.bpw for p in front],
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
    reference, chosen = baseline(points), smallest_keeping(points)
    if reference is not None:
        axes.axhline(reference.score, color=MUTED, linewidth=1, linestyle="--")
        axes.annotate(
            f"unquantized: {reference.score:.3g}",
            (0.01, reference.score),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            color=INK,
            fontsize=9,
        )
    if chosen is not None:
        axes.scatter(
            [chosen.bpw], [chosen.score], marker="*", s=220, color=CHOSEN, zorder=5,
            label=f"smallest keeping {KEEP:.0%}:\n{chosen.bpw:.2f} bpw, {chosen.allocation}",
        )  # fmt: skip
    axes.set_xlabel("bits per weight over all parameters (bpw)")
    axes.set_ylabel(score_name)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    theme.tidy(axes)
    return figure


def _errors(points: Sequence[Point]) -> list[list[float]]:
    return theme.errors(
        [p.score for p in points], [p.low for p in points], [p.high for p in points]
    )


def front_plot(points: Sequence[Point], score_name: str, title: str) -> Any:
    """The same as a plotly figure: hovering a point tells its allocation."""
    import plotly.graph_objects as go

    front = pareto_front(points)
    lower, upper = _errors(front)
    plot = go.Figure()
    plot.add_scatter(
        x=[p.bpw for p in points],
        y=[p.score for p in points],
        mode="markers",
        name=f"trials ({len(points)})",
        marker={"color": MUTED, "size": 8, "symbol": "circle-open"},
        text=[p.allocation for p in points],
        hovertemplate="%{text}<br>%{x:.3f} bpw, score %{y:.4g}<extra></extra>",
    )
    plot.add_scatter(
        x=[p.bpw for p in front],
        y=[p.score for p in front],
        error_y={"array": upper, "arrayminus": lower, "thickness": 1, "width": 3},
        mode="lines+markers",
        name=f"front ({len(front)}), 95% interval",
        line={"color": FRONT, "width": 2},
        text=[p.allocation for p in front],
        hovertemplate="%{text}<br>%{x:.3f} bpw, score %{y:.4g}<extra>front</extra>",
    )
    reference, chosen = baseline(points), smallest_keeping(points)
    if reference is not None:
        plot.add_hline(
            reference.score,
            line={"color": MUTED, "dash": "dash", "width": 1},
            annotation_text=f"unquantized: {reference.score:.3g}",
            annotation_position="bottom right",
        )
    if chosen is not None:
        plot.add_scatter(
            x=[chosen.bpw],
            y=[chosen.score],
            mode="markers",
            name=f"smallest keeping {KEEP:.0%}: {chosen.allocation}",
            marker={"color": CHOSEN, "size": 16, "symbol": "star"},
            hoverinfo="skip",
        )
    plot.update_layout(
        title=title,
        xaxis_title="bits per weight over all parameters (bpw)",
        yaxis_title=score_name,
        template="plotly_white",
        legend={"x": 0.99, "y": 0.02, "xanchor": "right", "yanchor": "bottom"},
    )
    return plot
