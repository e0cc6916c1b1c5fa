"""One style for all figures: colours distinct in greyscale, plus a marker and a dash each."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

NARROWEST = 6.0  # inches that titles and legends need
TITLE_SIZE, POINTS = 11, 72  # of a title's font, and per inch
DENSEST = 20  # characters of a title per inch, if they are narrow
INK, MUTED, FRONT, CHOSEN = "#1f2933", "#9aa5b1", "#0b6e99", "#d1495b"
STYLES: tuple[Mapping[str, Any], ...] = (
    {"color": "#0b6e99", "marker": "o", "linestyle": "-"},
    {"color": "#d1495b", "marker": "s", "linestyle": "--"},
    {"color": "#8fb339", "marker": "^", "linestyle": "-."},
    {"color": "#6b4c9a", "marker": "D", "linestyle": ":"},
    {"color": "#e08e0b", "marker": "v", "linestyle": (0, (5, 1))},
    {"color": "#3a3a3a", "marker": "P", "linestyle": (0, (1, 1))},
    {"color": "#5fb3b3", "marker": "X", "linestyle": (0, (3, 1, 1, 1))},
)


def style(number: int) -> Mapping[str, Any]:
    """Colour, marker and dash of the n-th curve."""
    return STYLES[number % len(STYLES)]


WHOLE: Mapping[str, Any] = {"color": INK, "marker": "*", "linestyle": "-", "markersize": 8}


def score_label(name: str, bounds: tuple[float, float] | None) -> str:
    """What an axis of scores says: the metric and, if its evaluator defines one, its range."""
    return name if bounds is None else f"{name} (points, {bounds[0]:g} to {bounds[1]:g})"


def heading(figure: Any, title: str) -> None:
    """A title at the left, in lines that fit the figure; a dollar sign starts no formula."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=TITLE_SIZE)

    def inches(text: str) -> float:
        extents = (
            text_to_path.get_text_width_height_descent(line, font, ismath=False)
            for line in text.split("\n")
        )
        return max(float(width) for width, _, _ in extents) / POINTS

    space = 0.97 * figure.get_figwidth()
    width = max(1, int(space * DENSEST))
    while inches(text := wrapped(title, width)) > space and width > 1:
        width -= 1
    figure.suptitle(text, x=0.01, ha="left", fontsize=TITLE_SIZE, color=INK, parse_math=False)


def wrapped(text: str, width: int) -> str:
    """A text in lines of at most this many characters."""
    lines = [fill(line, width, break_on_hyphens=False) for line in text.split("\n")]
    return "\n".join(lines)


def panels(count: int, title: str, width: float = 3.4, height: float = 4.2) -> tuple[Any, Any]:
    """A matplotlib figure with `count` panels in a row that share their y axis."""
    figure, rows = panel_rows(count, title, width, [height])
    return figure, rows[0]


def panel_rows(count: int, title: str, width: float, heights: Sequence[float]) -> tuple[Any, Any]:
    """A matplotlib figure with rows of `count` panels; each row has a y axis, each column an x."""
    from matplotlib.figure import Figure

    size = (max(width * count + 0.6, NARROWEST), sum(heights))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    heading(figure, title)
    rows = figure.subplots(
        len(heights), count, sharex="col", sharey="row", squeeze=False, height_ratios=heights
    )
    return figure, rows


def tidy(panel: Any) -> None:
    """No frame, a faint grid."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
    panel.set_axisbelow(True)


def errors(
    values: Sequence[float], lows: Sequence[float | None], highs: Sequence[float | None]
) -> list[list[float]]:
    """Lengths of error bars below and above; 0 without an interval."""
    below = [0.0 if x is None else max(v - x, 0.0) for v, x in zip(values, lows, strict=True)]
    above = [0.0 if x is None else max(x - v, 0.0) for v, x in zip(values, highs, strict=True)]
    return [below, above]


def reference_line(
    panel: Any, score: float, low: float | None = None, high: float | None = None
) -> None:
    """The unquantized score, with its interval as a band."""
    if low is not None and high is not None:
        panel.axhspan(low, high, color=MUTED, alpha=0.2, linewidth=0)
    panel.axhline(
        score, color=INK, linewidth=1, linestyle=(0, (6, 3)), label=f"unquantized: {score:.4g}"
    )


def legend_below(figure: Any, panel: Any, columns: int, note: str = "") -> None:
    """One legend under all panels, in as many of the columns as the figure is wide."""
    handles, labels = panel.get_legend_handles_labels()
    longest = max((len(label) for label in labels), default=0)
    fitting = int(figure.get_figwidth() / (0.8 + 0.09 * longest))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=max(1, min(columns, fitting)),
        frameon=False, fontsize=10, title=note or None, handlelength=3,
    )  # fmt: skip
