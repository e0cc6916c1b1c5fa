"""Score against bits: one curve per quantizer, one panel per part of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmq.analysis import theme
from mmq.analysis.plateau import HEIGHTS, label_scores, plateau

MARGIN = 0.03  # share of the axis below the lowest score, so that no mark is cut
PANEL = 30  # characters of a line above a panel


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The score, with its 95% interval, of one part at a width and the rest unquantized."""

    quantizer: str
    part: str
    bits: int
    score: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """The unquantized model's score with its 95% interval and number of samples."""

    score: float
    low: float | None
    high: float | None
    n: int


def holding_width(points: Sequence[CurvePoint], reference: float, share: float) -> int | None:
    """The smallest width that, like all wider ones, reaches this share of the reference.

    None if the widest does not. The points belong to one quantizer and one part.
    """
    bits = None
    for point in sorted(points, key=lambda p: -p.bits):
        if point.score < share * reference:
            break
        bits = point.bits
    return bits


def grouped(points: Sequence[CurvePoint]) -> Mapping[tuple[str, str], list[CurvePoint]]:
    """Points by (part, quantizer) in order of appearance, each in ascending order of bits."""
    curves: dict[tuple[str, str], list[CurvePoint]] = {}
    for point in points:
        curves.setdefault((point.part, point.quantizer), []).append(point)
    return {key: sorted(curve, key=lambda p: p.bits) for key, curve in curves.items()}


def curves_figure(
    points: Sequence[CurvePoint], reference: Reference, score_name: str, title: str
) -> Any:
    """A matplotlib figure: one panel per part, with 95% intervals and the unquantized score.

    A row of panels above enlarges a plateau that an axis of all scores cannot resolve.
    """
    curves = grouped(points)
    parts = list(dict.fromkeys(part for part, _ in curves))
    names = list(dict.fromkeys(name for _, name in curves))
    widths = sorted({point.bits for point in points})
    near = plateau([point.score for point in points])
    figure, rows = theme.panel_rows(len(parts), title, 3.2, [4.2] if near is None else HEIGHTS)
    for row in rows:
        for panel, part in zip(row, parts, strict=True):
            theme.reference_line(panel, reference.score, reference.low, reference.high)
            for number, name in enumerate(names):
                _draw(panel, curves.get((part, name), []), number, len(names), name)
            panel.set_xticks(widths, [str(bits) for bits in widths])
            theme.tidy(panel)
    for panel, part in zip(rows[0], parts, strict=True):
        name = "all components" if part == "all" else f"{part} alone"
        panel.set_title(theme.wrapped(name, PANEL), fontsize=11)
    for panel in rows[-1]:
        panel.set_xlabel("bits per weight")
    _, top = rows[-1][0].get_ylim()
    least = min([0.0, *(p.score if p.low is None else p.low for p in points)])
    rows[-1][0].set_ylim(bottom=least - MARGIN * (top - least))
    label_scores(figure, rows, near, reference.score, f"{score_name}, n = {reference.n}")
    note = "bars and band: 95% intervals; other components unquantized"
    theme.legend_below(figure, rows[-1][0], len(names) + 1, note)
    return figure


def _draw(panel: Any, curve: Sequence[CurvePoint], number: int, of: int, name: str) -> None:
    """One curve, shifted a little so that the error bars of several curves do not overlap."""
    aside = (number - (of - 1) / 2) * 0.08
    places = [point.bits + aside for point in curve]
    scores = [point.score for point in curve]
    panel.errorbar(
        places,
        scores,
        yerr=theme.errors(scores, [p.low for p in curve], [p.high for p in curve]),
        elinewidth=0.8,
        capsize=1.5,
        markersize=5,
        linewidth=1.6,
        label=name,
        **theme.style(number),
    )
