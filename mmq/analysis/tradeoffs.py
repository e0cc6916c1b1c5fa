"""Figures of studies: cost and savings of quantizing different parts, and pairs of parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

DARK = 0.5  # share of the colour scale above which numbers are white


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
    selections = {p: Selection.of(p.allocation, components) for p in points}
    everything = (tuple(components), GROUPS, TYPES)
    figure, axes = theme.panels(3, title, width=4.2, height=5)
    for k, (panel, name) in enumerate(zip(axes, ("components", "groups", "types"), strict=True)):
        panel.scatter(
            [p.size for p in points], [p.score for p in points], s=5, color=theme.MUTED, alpha=0.5
        )
        lines: dict[tuple[str, ...], list[Point]] = {}
        for point, selection in selections.items():
            if selection is None:
                continue
            sides = (selection.components, selection.groups, selection.types)
            if all(side == everything[j] for j, side in enumerate(sides) if j != k):
                lines.setdefault(sides[k], []).append(point)
        for number, (side, some) in enumerate(sorted(lines.items(), key=lambda x: len(x[0]))):
            some.sort(key=lambda p: p.size)
            label = "all" if side == everything[k] else " + ".join(side)
            x, y = [p.size for p in some], [p.score for p in some]
            panel.plot(x, y, markersize=5, linewidth=1.5, label=label, **theme.style(number))
        if (reference := baseline(points)) is not None:
            panel.axhline(reference.score, color=theme.INK, linewidth=1)
        panel.set_title(f"which {'layer types' if name == 'types' else name}", fontsize=11)
        panel.set_xlabel(f"{axis_of(points)} bits per weight (bpw)")
        panel.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12),
                     ncols=4, handlelength=3)  # fmt: skip
        theme.tidy(panel)
    axes[0].set_ylabel(f"{score_name}, {len(points)} allocations")
    return figure


def fronts_figure(studies: Mapping[str, Sequence[Point]], score_name: str, title: str) -> Any:
    """Trials and fronts of several studies, score against bpw (paper, figure 4)."""
    every = [point for points in studies.values() for point in points]
    axis = axis_of(comparable(every))
    studies = {name: on_axis(points, axis) for name, points in studies.items()}
    figure, (panel,) = theme.panels(1, title, width=7.5, height=4.8)
    for number, (name, points) in enumerate(studies.items()):
        look, front = theme.style(number), pareto_front(points)
        panel.scatter([p.size for p in points], [p.score for p in points], s=8, alpha=0.3,
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
    panel.set_xlabel(AXIS_LABELS[axis])
    panel.set_ylabel(score_name)
    theme.tidy(panel)
    theme.legend_below(figure, panel, len(studies), "fronts (of how many trials), 95% intervals")
    return figure


def pairs_figure(
    points: Sequence[Point], components: Sequence[str], score_name: str, title: str
) -> Any:
    """Heat maps of the score over the widths of two components (paper, figures 6, 11).

    The row and the column at 16 bits are one component alone. Cells that were not evaluated stay
    empty.
    """
    scores = {
        tuple(BitAllocation.parse(p.allocation).over(components).bits): p.score
        for p in points
        if "." not in p.allocation
    }
    widths = sorted({bits for key in scores for _, bits in key})
    pairs = [(a, b) for i, a in enumerate(components) for b in components[i + 1 :]]
    figure, axes = theme.panels(len(pairs), f"{title}; the others at 16 bits", width=3.6, height=4)
    low, top = min(scores.values(), default=0.0), max(scores.values(), default=1.0)
    for panel, (one, other) in zip(axes, pairs, strict=True):
        cells = [
            [scores.get(_pair(components, {one: i, other: j}), float("nan")) for i in widths]
            for j in widths
        ]
        image = panel.imshow(cells, origin="lower", cmap="viridis_r", vmin=low, vmax=top)
        for y, row in enumerate(cells):
            for x, value in enumerate(row):
                if value == value:
                    ink = "white" if value - low > DARK * (top - low) else theme.INK
                    panel.text(
                        x, y, f"{value:.3g}", ha="center", va="center", fontsize=7, color=ink
                    )
        panel.set_xticks(range(len(widths)), [str(bits) for bits in widths])
        panel.set_yticks(range(len(widths)), [str(bits) for bits in widths])
        panel.set_xlabel(f"{one} bits")
        panel.set_ylabel(f"{other} bits")
        panel.tick_params(labelleft=True)
    figure.colorbar(image, ax=list(axes), label=score_name, shrink=0.8)
    return figure


def _pair(components: Sequence[str], widths: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((name, widths.get(name, UNQUANTIZED)) for name in components)
