"""Figures of an analysis: importances with intervals, side by side (paper, figures 7, 8, 12)."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from mmq.analysis import theme
from mmq.analysis.importance import SCALES, Ranking, Share
from mmq.analysis.report import Analysis

MANY = 6  # with more parts, only their consensus is plotted, in rows
HATCHES = ("", "//", "..", "xx")
INTERVALS = "bars: 95% intervals over configurations"
AXIS = {"score": "importance for the score (%)", "log-loss": "importance for the log-loss (%)"}


def analysis_figures(analysis: Analysis, subject: str = "") -> dict[str, Any]:
    """Matplotlib figures by name: importances on each scale, and matched against raw.

    subject: model, task and metric in words, which begin every title.
    """
    figures = {
        f"importance-{scale}": importance_figure(analysis.rankings[scale], AXIS[scale], subject)
        for scale in SCALES
    }
    several = analysis.comparison
    if several is not None and several.differences:
        figures["matched"] = matched_figure(several.raw, several.matched, several.shared, subject)
    return figures


def importance_figure(rankings: Sequence[Ranking], label: str, subject: str = "") -> Any:
    """One panel per table: every part's importance by every measure, the consensus dark."""
    title = f"{subject}\n{INTERVALS}".strip()
    if any(len(ranking.table.parts) > MANY for ranking in rankings):
        return _rows_figure(rankings, label, title)
    figure, axes = theme.panels(len(rankings), title, width=4.6)
    parts = list(dict.fromkeys(part for ranking in rankings for part in ranking.table.parts))
    for panel, ranking in zip(axes, rankings, strict=True):
        panel.set_title(_caption(ranking), fontsize=9)
        if ranking.reason:
            _say(panel, ranking.reason)
            continue
        for number, measure in enumerate(ranking.measures):
            shares = {part: ranking.shares[measure].get(part) for part in parts}
            hatch, color = HATCHES[number % len(HATCHES)], theme.style(number)["color"]
            if measure == "consensus":
                hatch, color = "", theme.INK
            look = {"hatch": hatch, "edgecolor": "white", "color": color}
            _bars(panel, shares, number, len(ranking.measures), measure, **look)
        panel.set_xticks(range(len(parts)), parts)
        panel.set_ylim(0, 100)
        theme.tidy(panel)
    axes[0].set_ylabel(label)
    _legend(figure, axes, 4)
    return figure


def matched_figure(
    raw: Sequence[Ranking], matched: Sequence[Ranking], shared: int, subject: str = ""
) -> Any:
    """Consensus on all configurations next to that on the shared ones, one panel each."""
    title = f"{subject}\nthe {shared} shared configurations show the effect of the designs"
    title = f"{title}; {INTERVALS}".strip()
    figure, axes = theme.panels(2, title, width=4.6)
    captions = ("all configurations of each", f"the {shared} shared ones")
    for panel, rankings, caption in zip(axes, (raw, matched), captions, strict=True):
        parts = list(dict.fromkeys(part for r in rankings for part in r.table.parts))
        panel.set_title(caption, fontsize=10)
        for number, ranking in enumerate(rankings):
            look = theme.style(number)["color"]
            shares = {part: ranking.consensus.get(part) for part in parts}
            name = ranking.table.name
            hatch = {"hatch": HATCHES[number % len(HATCHES)], "edgecolor": "white"}
            _bars(panel, shares, number, len(rankings), name, color=look, **hatch)
        panel.set_xticks(range(len(parts)), parts)
        panel.set_ylim(0, 100)
        theme.tidy(panel)
    axes[0].set_ylabel("consensus importance for the score (%)")
    _legend(figure, axes, len(raw))
    return figure


def _legend(figure: Any, axes: Sequence[Any], columns: int) -> None:
    """The legend of the panel with the most entries; none if every panel is a refusal."""
    panel = max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[0]))
    if panel.get_legend_handles_labels()[0]:
        theme.legend_below(figure, panel, columns)


def _caption(ranking: Ranking) -> str:
    fit = "" if ranking.forest is None else f", held-out R² {ranking.forest.value:.2f}"
    return fill(f"{ranking.table.name}, n = {ranking.table.n}{fit}", 44)


def _say(panel: Any, reason: str) -> None:
    panel.text(0.5, 0.5, fill(f"not ranked: {reason}", 36), ha="center", va="center",
               transform=panel.transAxes, fontsize=9, color=theme.INK)  # fmt: skip
    panel.set_xticks([])
    theme.tidy(panel)


def _bars(
    panel: Any, shares: Mapping[str, Share | None], number: int, of: int, label: str, **look: Any
) -> None:
    from matplotlib.patheffects import withStroke

    defined = {part: share for part, share in shares.items() if share is not None}
    width = 0.8 / of
    places = [list(shares).index(part) + (number - (of - 1) / 2) * width for part in defined]
    values = [share.value for share in defined.values()]
    bars = theme.errors(
        values, [s.low for s in defined.values()], [s.high for s in defined.values()]
    )
    container = panel.bar(
        places, values, width, yerr=bars, capsize=2, label=label, ecolor=theme.INK, **look
    )
    _, caps, lines = container.errorbar.lines
    for line in (*caps, *lines):  # legible on dark and on light bars
        line.set_path_effects([withStroke(linewidth=2.6, foreground="white")])


def _rows_figure(rankings: Sequence[Ranking], label: str, title: str) -> Any:
    """For many parts: their consensus, the largest at the top, one panel per table."""
    tallest = max(len(ranking.table.parts) for ranking in rankings)
    figure, axes = theme.panels(len(rankings), title, width=5.2, height=0.28 * tallest + 1.6)
    for panel, ranking in zip(axes, rankings, strict=True):
        panel.set_title(_caption(ranking), fontsize=9)
        if ranking.reason:
            _say(panel, ranking.reason)
            continue
        consensus = dict(list(ranking.consensus.items())[::-1])
        values = [share.value for share in consensus.values()]
        lows, highs = [s.low for s in consensus.values()], [s.high for s in consensus.values()]
        panel.errorbar(values, range(len(consensus)), xerr=theme.errors(values, lows, highs),
                       fmt="o", color=theme.FRONT, ecolor=theme.MUTED, capsize=2)  # fmt: skip
        panel.set_yticks(range(len(consensus)), list(consensus))
        panel.tick_params(labelleft=True)
        panel.set_xlim(left=0)
        panel.set_xlabel(label)
        theme.tidy(panel)
    return figure
