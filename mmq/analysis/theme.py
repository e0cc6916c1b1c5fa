"""One style for all figures: colours distinct in greyscale, plus a marker and a dash each."""

from collections.abc import Mapping, Sequence
from typing import Any

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


def panels(count: int, title: str, width: float = 3.4, height: float = 4.2) -> tuple[Any, Any]:
    """A matplotlib figure with `count` panels in a row that share their y axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count + 0.6, height), dpi=150, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return figure, figure.subplots(1, count, sharey=True, squeeze=False)[0]


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
    panel.axhline(score, color=INK, linewidth=1, label="unquantized")


def legend_below(figure: Any, panel: Any, columns: int, note: str = "") -> None:
    """One legend under all panels."""
    figure.legend(
        *panel.get_legend_handles_labels(), loc="outside lower center", ncols=columns,
        frameon=False, fontsize=10, title=note or None,
    )  # fmt: skip
