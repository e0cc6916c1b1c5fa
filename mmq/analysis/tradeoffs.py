"""Figures of studies: cost and savings of quantizing different parts, and pairs of parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log2
from typing import Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.allocation.parts import GROUPS, TYPES
from mmq.analysis import theme
from mmq.analysis.fronts import (
    AXIS_LABELS,
    Point,
    axis_of,
    baseline,
    comparable,
    on_axis,
    pareto_front,
)
from mmq.analysis.plateau import HEIGHTS, label_scores, plateau

DARK = 0.5  # share of the colour scale above which numbers are white
COLUMNS = 3  # heat maps in a row
CELL = 0.31  # inches that a score needs
DECIMAL = 0.09  # inches that one more decimal needs
FINE = 0.05  # range of the scores, as a share of the best, below which they need one more decimal


@dataclass(frozen=True, slots=True)
class Selection:
    """What an allocation of the sweep quantizes, all at one width."""

    components: tuple[str, ...]
    groups: tuple[str, ...]
    types: tuple[str, ...]
    bits: int

    @classmethod
    def of(cls, allocation: str, components: Sequence[str]) -> "Selection | None":
        """From an allocation; None unless it is a product of subsets at one width."""
        widths = BitAllocation.parse(allocation).widths(components)
        quantized = {part: bits for part, bits in widths.items() if bits != UNQUANTIZED}
        sides = [
            tuple(name for name in names if any(part[k] == name for part in quantized))
            for k, names in enumerate((components, GROUPS, TYPES))
        ]
        full = len(sides[0]) * len(sides[1]) * len(sides[2])
        if not quantized or len(set(quantized.values())) != 1 or len(quantized) != full:
            return None
        return cls(sides[0], sides[1], sides[2], next(iter(quantized.values())))


def sweep_figure(
    points: Sequence[Point], components: Sequence[str], score_name: str, title: str
) -> Any:
    """Score against bpw: by components, by layer types, by block groups (paper, figures 3, 9, 10).

    Grey dots are all allocations. In each panel the other two dimensions are complete; a line
    joins the widths of one subset.
    """
    near = plateau([p.score for p in points])
    figure, rows = theme.panel_rows(3, title, 4.2, [4.6] if near is None else HEIGHTS)
    for row in rows:
        for k, panel in enumerate(row):
            common = _draw_all(panel, points)
            _draw_subsets(panel, points, components, k)
    labels = [artist.get_label() for artist in common]
    names = ("components", "groups of blocks", "layer types")
    for panel, name in zip(rows[0], names, strict=True):
        panel.set_title(f"which {name}", fontsize=11)
    for panel in rows[-1]:
        panel.set_xlabel(f"{axis_of(points)} bits per weight (bpw)")
        subsets = [line for line in panel.lines if line.get_label() not in labels]
        panel.legend(
            handles=subsets, frameon=False, fontsize=9, loc="upper center", handlelength=3,
            bbox_to_anchor=(0.5, -0.12 if near is None else -0.22), ncols=2,
        )  # fmt: skip
    reference = baseline(points)
    label_scores(figure, rows, near, None if reference is None else reference.score, score_name)
    figure.legend(
        handles=common, loc="outside lower center", ncols=2, frameon=False, fontsize=9,
        handlelength=3,
    )  # fmt: skip
    return figure


def _draw_all(panel: Any, points: Sequence[Point]) -> list[Any]:
    """All allocations and the unquantized score; what was drawn, for a legend."""
    dots = panel.scatter(
        [p.size for p in points], [p.score for p in points], s=8, color=theme.MUTED, alpha=0.5,
        label=f"all {len(points)} allocations",
    )  # fmt: skip
    if (reference := baseline(points)) is None:
        return [dots]
    theme.reference_line(panel, reference.score)
    return [dots, *panel.lines]


def _draw_subsets(
    panel: Any, points: Sequence[Point], components: Sequence[str], dimension: int
) -> None:
    """A line for each subset of one dimension: components, groups or types."""
    for number, (side, some) in enumerate(_subsets(points, components, dimension).items()):
        complete = side == (tuple(components), GROUPS, TYPES)[dimension]
        look = {"markersize": 5, **(theme.WHOLE if complete else theme.style(number))}
        panel.plot(
            [p.size for p in some], [p.score for p in some], linewidth=1.5,
            label="all" if complete else " + ".join(side), **look,
        )  # fmt: skip
    theme.tidy(panel)


def _subsets(
    points: Sequence[Point], components: Sequence[str], dimension: int
) -> dict[tuple[str, ...], list[Point]]:
    """Points by subset of one dimension, where the others are complete; small subsets first."""
    everything = (tuple(components), GROUPS, TYPES)
    subsets: dict[tuple[str, ...], list[Point]] = {}
    for point in sorted(points, key=lambda p: p.size):
        selection = Selection.of(point.allocation, components)
        if selection is None:
            continue
        sides = (selection.components, selection.groups, selection.types)
        if all(side == everything[j] for j, side in enumerate(sides) if j != dimension):
            subsets.setdefault(sides[dimension], []).append(point)
    return dict(sorted(subsets.items(), key=lambda item: len(item[0])))


def fronts_figure(studies: Mapping[str, Sequence[Point]], score_name: str, title: str) -> Any:
    """Trials and fronts of several studies, score against bpw (paper, figure 4)."""
    every = [point for points in studies.values() for point in points]
    axis = axis_of(comparable(every))
    studies = {name: on_axis(points, axis) for name, points in studies.items()}
    near = plateau([point.score for point in every])
    figure, rows = theme.panel_rows(1, title, 7.5, [4.8] if near is None else HEIGHTS)
    references = {p.score for points in studies.values() if (p := baseline(points)) is not None}
    reference = references.pop() if len(references) == 1 else None
    for (panel,) in rows:
        for number, (name, points) in enumerate(studies.items()):
            _draw_front(panel, name, points, number)
        if reference is not None:
            theme.reference_line(panel, reference)
        theme.tidy(panel)
    (panel,) = rows[-1]
    panel.set_xlabel(AXIS_LABELS[axis])
    label_scores(figure, rows, near, reference, score_name)
    note = "fronts (of how many trials), 95% intervals; faint marks: all trials"
    theme.legend_below(figure, panel, len(studies) + 1, note)
    return figure


def _draw_front(panel: Any, name: str, points: Sequence[Point], number: int) -> None:
    """The trials of one study, faintly, and their front."""
    look, front = theme.style(number), pareto_front(points)
    panel.scatter([p.size for p in points], [p.score for p in points], s=12, alpha=0.3,
                  color=look["color"], marker=look["marker"])  # fmt: skip
    scores = [p.score for p in front]
    panel.errorbar(
        [p.size for p in front],
        scores,
        yerr=theme.errors(scores, [p.low for p in front], [p.high for p in front]),
        elinewidth=0.8,
        capsize=1.5,
        markersize=5,
        label=f"{name} ({len(points)})",
        **look,
    )


def pairs_figure(
    points: Sequence[Point], components: Sequence[str], score_name: str, title: str
) -> Any:
    """Heat maps of the score over the widths of two components (paper, figures 6, 11).

    The row and the column at 16 bits are one component alone. Cells that were not evaluated stay
    empty. Widths have their distances on a logarithmic scale.
    """
    scores = {
        tuple(BitAllocation.parse(p.allocation).over(components).bits): p.score
        for p in points
        if "." not in p.allocation
    }
    widths = sorted({bits for key in scores for _, bits in key})
    pairs = [(a, b) for i, a in enumerate(components) for b in components[i + 1 :]]
    columns = min(len(pairs), COLUMNS)
    low, top = min(scores.values(), default=0.0), max(scores.values(), default=1.0)
    fine = top - low < FINE * abs(top)
    decimals = (1 if top >= 10 else 2 if top >= 1 else 3) + fine
    heights = [3.8] * -(-len(pairs) // columns)
    others = "; in each panel, the other components at 16 bits" if len(components) > 2 else ""
    figure, rows = theme.panel_rows(columns, f"{title}{others}", _width(widths, fine), heights)
    panels = [panel for row in rows for panel in row]
    for panel, (one, other) in zip(panels, pairs, strict=False):
        cells = [
            [scores.get(_pair(components, {one: i, other: j}), float("nan")) for i in widths]
            for j in widths
        ]
        image = _heat_map(panel, cells, widths, (low, top), decimals)
        panel.set_xlabel(f"bits of {one} (log scale)")
        panel.set_ylabel(f"bits of {other} (log scale)")
    for panel in panels[len(pairs) :]:
        panel.set_axis_off()
    figure.colorbar(image, ax=panels, label=score_name, shrink=0.8)
    return figure


def _heat_map(
    panel: Any,
    cells: Sequence[Sequence[float]],
    widths: Sequence[int],
    ends: tuple[float, float],
    decimals: int,
) -> Any:
    """Cells with their scores, at the logarithms of the widths. ends: of the colour scale."""
    low, top = ends
    places = [log2(bits) for bits in widths]
    edges = _edges(places)
    image = panel.pcolormesh(edges, edges, cells, cmap="viridis_r", vmin=low, vmax=top)
    for y, row in zip(places, cells, strict=True):
        for x, value in zip(places, row, strict=True):
            if value == value:
                ink = "white" if value - low > DARK * (top - low) else theme.INK
                panel.text(
                    x, y, f"{value:.{decimals}f}", ha="center", va="center", fontsize=8, color=ink
                )
    panel.set_xticks(places, [str(bits) for bits in widths])
    panel.set_yticks(places, [str(bits) for bits in widths])
    panel.tick_params(labelleft=True, labelbottom=True)
    return image


def _edges(places: Sequence[float]) -> list[float]:
    """The borders of cells around these places, half way between neighbours."""
    if len(places) == 1:
        return [places[0] - 0.5, places[0] + 0.5]
    inner = [(a + b) / 2 for a, b in pairwise(places)]
    return [2 * places[0] - inner[0], *inner, 2 * places[-1] - inner[-1]]


def _width(widths: Sequence[int], fine: bool) -> float:
    """Inches of a panel whose closest scores do not touch. fine: they have one more decimal."""
    places = [log2(bits) for bits in widths]
    edges = _edges(places)
    closest = min((b - a for a, b in pairwise(places)), default=1.0)
    return max(3.8, 0.9 + (CELL + DECIMAL * fine) * (edges[-1] - edges[0]) / closest)


def _pair(components: Sequence[str], widths: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((name, widths.get(name, UNQUANTIZED)) for name in components)
