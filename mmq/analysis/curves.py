"""Score against bits: a curve a quantizer, a panel a part of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INK, MUTED = "#1f2933", "#9aa5b1"
STYLES = (  # told apart by colour, brightness, dash and marker: greyscale keeps three of them
    {"color": "#0b6e99", "marker": "o", "linestyle": "-"},
    {"color": "#d1495b", "marker": "s", "linestyle": "--"},
    {"color": "#8fb339", "marker": "^", "linestyle": "-."},
    {"color": "#6b4c9a", "marker": "D", "linestyle": ":"},
    {"color": "#e08e0b", "marker": "v", "linestyle": (0, (5, 1))},
    {"color": "#3a3a3a", "marker": "P", "linestyle": (0, (1, 1))},
)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A part of the model at a width, everything else untouched; score with its 95% interval."""

    quantizer: str
    part: str
    bits: int
    score: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """The unquantized model's score with its 95% interval, and on how many samples."""

    score: float
    low: float | None
    high: float | None
    n: int


def holding_width(points: Sequence[CurvePoint], reference: float, share: float) -> int | None:
    """The least width from which on upwards all points keep this share of the reference.

    None where the widest one does not; points are one quantizer's and one part's.
    """
    found = None
    for point in sorted(points, key=lambda p: -p.bits):
        if point.score < share * reference:
            break
        found = point.bits
    return found


def grouped(points: Sequence[CurvePoint]) -> Mapping[tuple[str, str], list[CurvePoint]]:
    """Points by (part, quantizer), ascending in bits, in the order in which they came."""
    curves: dict[tuple[str, str], list[CurvePoint]] = {}
    for point in points:
        curves.setdefault((point.part, point.quantizer), []).append(point)
    return {key: sorted(curve, key=lambda p: p.bits) for key, curve in curves.items()}


def curves_figure(
    points: Sequence[CurvePoint], reference: Reference, score_name: str, title: str
) -> Any:
    """A matplotlib figure: a panel a part, curves with 95% intervals, the unquantized score."""
    from matplotlib.figure import Figure

    curves = grouped(points)
    parts = list(dict.fromkeys(part for part, _ in curves))
    names = list(dict.fromkeys(name for _, name in curves))
    widths = sorted({point.bits for point in points})
    figure = Figure(figsize=(3.2 * len(parts) + 0.6, 4.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for panel, part in zip(panels, parts, strict=True):
        if reference.low is not None and reference.high is not None:
            panel.axhspan(reference.low, reference.high, color=MUTED, alpha=0.2, linewidth=0)
        panel.axhline(reference.score, color=INK, linewidth=1, label="unquantized")
        for number, name in enumerate(names):
            curve = curves.get((part, name), [])
            _draw(panel, curve, widths, number, len(names), name)
        panel.set_title("all components" if part == "all" else f"{part} alone", fontsize=11)
        panel.set_xticks(range(len(widths)), [str(bits) for bits in widths])
        panel.set_xlabel("bits")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, axis="y")
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel(f"{score_name}, n = {reference.n}")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center",
        ncols=len(names) + 1, frameon=False, fontsize=10, title="bars and band: 95% intervals",
    )  # fmt: skip
    return figure


def _draw(
    panel: Any, curve: Sequence[CurvePoint], widths: Sequence[int], number: int, of: int, name: str
) -> None:
    """One curve, set a little aside so that intervals of several do not hide each other."""
    aside = (number - (of - 1) / 2) * 0.08
    places = [widths.index(point.bits) + aside for point in curve]
    below = [0 if p.low is None else max(p.score - p.low, 0) for p in curve]
    above = [0 if p.high is None else max(p.high - p.score, 0) for p in curve]
    panel.errorbar(
        places,
        [point.score for point in curve],
        yerr=[below, above],
        elinewidth=0.8,
        capsize=1.5,
        markersize=5,
        linewidth=1.6,
        label=name,
        **STYLES[number % len(STYLES)],
    )
