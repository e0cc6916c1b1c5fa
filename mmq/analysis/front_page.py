"""The interactive front: a plot with a table of all trials and links, in one HTML file."""

from collections.abc import Callable, Sequence
from html import escape
from itertools import cycle
from textwrap import fill
from typing import Any

from mmq.allocation.widths_list import brief_text
from mmq.analysis.fronts import Point, axis_label, baseline, pareto_front
from mmq.analysis.plateau import plateau
from mmq.analysis.plots import FORBIDDEN, Highlights, errors, size_range
from mmq.analysis.theme import CHOSEN, FRONT, INK, MUTED

SYMBOLS = ("star", "diamond")  # markers of the first and the second selection
RULE_SYMBOLS = (
    *("triangle-up-open", "square-open", "triangle-down-open", "cross-open", "x-open"),
    *("triangle-left-open", "triangle-right-open"),
)
HEIGHT, TOP, BOTTOM = 340, 60, 80  # pixels: of the axes, above them for buttons, below for labels
LINE = 19  # pixels of a line of the title or the legend
TITLE = 60  # characters of such a line, for a pane of MLflow
BITS_PER_MIB = 8 * 2**20
CONFIG = {"responsive": True, "displayModeBar": False}  # in a narrow pane, it covers the title
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
html {{ overflow-y: scroll; }}
body {{ font: 14px sans-serif; margin: 1em; color: {ink}; }}
td, th {{ padding: 2px 12px 2px 0; text-align: right; }}
td:first-child, th:first-child {{ text-align: left; }}
tr.front {{ font-weight: bold; color: {front}; }}
</style></head><body>{plot}
<p>Drag to zoom in, double-click to zoom out.
Bold: on the front. The size of unquantized weights is that of 16 bits each.</p>
<table><tr>{heads}</tr>
{rows}
</table></body></html>
"""
Link = Callable[[Point], str]


def front_page(
    points: Sequence[Point],
    score_name: str,
    title: str,
    highlights: Highlights | None = None,
    parameters: int = 0,
    link: Link = lambda _: "",
) -> str:
    """An HTML page that works offline: the plot, and a row per trial, the front first.

    parameters: of the model, for sizes in MiB; 0 if unknown. link: the address of a trial's run.
    """
    plot = front_plot(points, score_name, title, highlights, parameters)
    front = pareto_front(points)
    others = sorted((p for p in points if p not in front), key=lambda p: (-p.score, p.size))
    costs = points[0].cost if points else None
    heads = ["allocation", score_name, "95% interval", "stored bits", "nominal bits", "MiB"]
    heads += [] if costs is None else [costs.label]
    rows = [_row(p, p in front, parameters, link(p)) for p in (*front, *others)]
    return PAGE.format(
        title=escape(title.partition("\n")[0]),
        ink=INK,
        front=FRONT,
        plot=plot.to_html(full_html=False, include_plotlyjs=True, config=CONFIG),
        heads="".join(f"<th>{escape(head)}</th>" for head in heads),
        rows="\n".join(rows),
    )


def _row(point: Point, on_front: bool, parameters: int, address: str) -> str:
    """One trial's row of the table."""
    name = escape(point.allocation)
    if address:
        name = f'<a href="{escape(address)}" target="_blank">{name}</a>'
    cells = [name, f"{point.score:.4g}", _interval(point), _bits(point.stored_bpw)]
    cells += [_bits(point.bpw), _mib(point, parameters)]
    cells += [] if point.cost is None else [f"{point.cost.value:.4g}"]
    mark = ' class="front"' if on_front else ""
    return f"<tr{mark}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _bits(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(point: Point) -> str:
    if point.low is None or point.high is None:
        return ""
    return f"{point.low:.4g} to {point.high:.4g}"


def _mib(point: Point, parameters: int) -> str:
    """The weights' size: as a target writes them, or with stored bits."""
    if point.cost is not None:
        return f"{point.cost.gib * 1024:.4g}"
    bits = point.bpw if point.stored_bpw is None else point.stored_bpw
    return f"{parameters * bits / BITS_PER_MIB:.4g}" if parameters else ""


def _hover(point: Point, parameters: int) -> str:
    """The text of a hovered point: allocation, score with its interval, all sizes."""
    interval = f" ({_interval(point)})" if _interval(point) else ""
    mib = f", {_mib(point, parameters)} MiB" if _mib(point, parameters) else ""
    name, value = brief_text(point.allocation), f"{point.objective} {point.score:.4g}{interval}"
    return f"{name}<br>{value}<br>{point.size_text}{mib}"


def front_plot(
    points: Sequence[Point],
    score_name: str,
    title: str,
    highlights: Highlights | None = None,
    parameters: int = 0,
) -> Any:
    """A plotly figure: all trials, the front, bounds, selections, and a button for the plateau."""
    import plotly.graph_objects as go

    highlights = highlights or Highlights()
    front = pareto_front(points)
    lower, upper = errors(front)
    plot = go.Figure()
    plot.add_scatter(
        x=[p.size for p in points],
        y=[p.score for p in points],
        mode="markers",
        name=f"trials ({len(points)})",
        marker={"color": MUTED, "size": 8, "symbol": "circle-open"},
        text=[_hover(p, parameters) for p in points],
        hovertemplate="%{text}<extra></extra>",
    )
    plot.add_scatter(
        x=[p.size for p in front],
        y=[p.score for p in front],
        error_y={"array": upper, "arrayminus": lower, "thickness": 1, "width": 3},
        mode="lines+markers",
        name=f"front ({len(front)}), 95% interval",
        line={"color": FRONT, "width": 2},
        text=[_hover(p, parameters) for p in front],
        hovertemplate="%{text}<extra>front</extra>",
    )
    _add_marks(plot, highlights)
    if (reference := baseline(points)) is not None:
        plot.add_hline(
            reference.score,
            line={"color": INK, "dash": "dash", "width": 1},
            annotation_text=f"unquantized: {reference.score:.4g}",
            annotation_position="top right",
        )
    _add_bounds(plot, points, highlights)
    _lay_out(plot, points, title, highlights)
    plot.update_layout(yaxis_title=score_name)
    return plot


def _lay_out(plot: Any, points: Sequence[Point], title: str, highlights: Highlights) -> None:
    """Title and buttons above the axes, the legend below: a pane of MLflow is narrow."""
    heading = _wrapped(title)
    buttons = _zoom(points)
    above = (TOP if buttons else LINE) + LINE * (heading.count("<br>") + 2)
    below = BOTTOM + LINE * sum(trace.name.count("<br>") + 1 for trace in plot.data)
    plot.update_layout(
        title={
            "text": heading,
            "font": {"size": 14},
            "yref": "container",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": LINE},
        },
        margin={"t": above, "b": below, "l": 70, "r": 20},
        xaxis={"title": axis_label(points), "range": size_range(points, highlights.most)},
        template="plotly_white",
        height=HEIGHT + above + below,
        legend={"x": 0, "xanchor": "left", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        updatemenus=buttons,
    )


def _wrapped(text: str) -> str:
    """A text of the plot in lines that fit a narrow pane; its line breaks stay."""
    lines = [fill(line, TITLE, break_on_hyphens=False) for line in text.split("\n")]
    return "<br>".join(lines).replace("\n", "<br>")


def _add_marks(plot: Any, highlights: Highlights) -> None:
    """Add the rules of thumb and the selections."""
    for (name, rule), symbol in zip(highlights.rule_groups.items(), cycle(RULE_SYMBOLS)):
        plot.add_scatter(
            x=[p.size for p in rule], y=[p.score for p in rule], mode="markers",
            name=_wrapped(f"rule of thumb: {name}"), hoverinfo="skip",
            marker={"color": INK, "size": 10, "symbol": symbol},
        )  # fmt: skip
    for (_, point), symbol in zip(highlights.marked, SYMBOLS, strict=False):
        plot.add_scatter(
            x=[point.size],
            y=[point.score],
            mode="markers",
            name=_wrapped(highlights.label(point).replace("\n", " ")),
            marker={"color": CHOSEN, "size": 16, "symbol": symbol},
            hoverinfo="skip",
        )


def _zoom(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Buttons that show all scores, or the plateau alone."""
    if (near := plateau([point.score for point in points])) is None:
        return []
    pad = 0.15 * (near[1] - near[0]) or 0.01 * near[1]
    ranges = {"all scores": {"yaxis.autorange": True}, "plateau": {
        "yaxis.autorange": False, "yaxis.range": [near[0] - pad, near[1] + pad],
    }}  # fmt: skip
    buttons = [{"label": k, "method": "relayout", "args": [v]} for k, v in ranges.items()]
    return [{"type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1.02,
             "yanchor": "bottom", "buttons": buttons}]  # fmt: skip


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
            annotation_position="bottom left",
        )
        plot.add_hrect(end, highlights.least, **shade)
