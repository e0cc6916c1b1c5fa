"""The scores near the best one, enlarged where an axis of all scores cannot resolve them."""

from collections.abc import Iterable, Sequence
from typing import Any

from mmq.analysis.theme import INK

PLATEAU = 0.95  # share of the best score from which a score is on the plateau
FLAT = 0.25  # largest share of all scores' range that the plateau has to be enlarged
MIN_PLATEAU = 3  # scores
FAINT = 0.3  # opacity of intervals in enlarged panels
HEIGHTS = (3.4, 2.6)  # inches of the rows that enlarge the plateau and show all scores


def plateau(scores: Sequence[float]) -> tuple[float, float] | None:
    """The lowest and highest of the scores near the best one, if they need a panel.

    None if they take a fair share of the axis anyway, if they are equal, or if there are too few.
    """
    if not scores or (best := max(scores)) <= 0:
        return None
    near = [score for score in scores if score >= PLATEAU * best]
    if len(near) < MIN_PLATEAU or min(near) == best:
        return None
    resolved = best - min(near) > FLAT * (best - min(scores))
    return None if resolved else (min(near), best)


def enlarge(
    upper: Iterable[Any], lower: Iterable[Any], near: tuple[float, float], reference: float | None
) -> None:
    """Limit the upper panels to the plateau, and mark in the lower ones what they show.

    reference: the unquantized score, which the upper panels show, too. Intervals are longer than
    an enlarged panel is high, and are faint there.
    """
    low, high = near
    pad = 0.15 * (high - low)
    if reference is not None and reference >= PLATEAU * high:
        low, high = min(low, reference), max(high, reference)
    for panel in upper:
        panel.set_ylim(low - pad, high + pad)
        for container in panel.containers:
            _, caps, bars = container.lines
            for line in (*caps, *bars):
                line.set_alpha(FAINT)
    for panel in lower:
        panel.axhspan(
            low - pad,
            high + pad,
            fill=False,
            edgecolor=INK,
            linewidth=0.9,
            zorder=3,
        )


def label_scores(
    figure: Any,
    rows: Sequence[Sequence[Any]],
    near: tuple[float, float] | None,
    reference: float | None,
    label: str,
) -> None:
    """Label rows of panels with the score, and enlarge the plateau in the first one, if any."""
    if near is None:
        rows[0][0].set_ylabel(label)
        return
    enlarge(rows[0], rows[1], near, reference)
    figure.supylabel(label, fontsize=10, color=INK)
    rows[0][0].set_ylabel(f"from {PLATEAU:.0%} of the best", fontsize=9)
    rows[1][0].set_ylabel("all (box: enlarged)", fontsize=9)
