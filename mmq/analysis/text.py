"""An analysis as text: for the terminal, and as Markdown for the run's description."""

from collections.abc import Callable, Sequence

from mmq.analysis.findings import (
    comparison_rows,
    fit_sentence,
    headline,
    interaction_sentence,
    order_sentence,
    pair_sentence,
    share_rows,
)
from mmq.analysis.importance import Ranking
from mmq.analysis.interactions import PairLoss, summarize
from mmq.analysis.report import Analysis

Layout = Callable[[Sequence[str], Sequence[Sequence[str]]], str]
MAX_PAIRS = 10  # lines of interactions; the tables have all of them
SCALES = {"score": "On the score", "log-loss": "On the logarithm of the loss"}
ABOUT = "Percent of the importance with 95% intervals over resampled configurations"


def text(analysis: Analysis, layout: Layout) -> str:
    """The finding in the first line, then all details; layout: aligned or markdown."""
    parts = [analysis.finding]
    if analysis.comparison is not None:
        head, rows = comparison_rows(analysis.comparison)
        parts.append(analysis.comparison.warning or "All have the same configurations.")
        parts.append(layout(head, rows))
    for number, table in enumerate(analysis.tables):
        if len(analysis.tables) > 1:
            parts.append(f"## {table.name}")
        parts += [_list(table.notes)] if table.notes else []
        for scale, rankings in analysis.rankings.items():
            parts += _ranking(scale, rankings[number], layout)
        parts += _pairs(analysis.pairs[number])
    return "\n\n".join(parts)


def _ranking(scale: str, ranking: Ranking, layout: Layout) -> list[str]:
    parts = [f"{SCALES[scale]}: {headline(ranking, named=False)}"]
    if fit := fit_sentence(ranking):
        parts.append(f"{fit}.")
    if ranking.notes:
        parts.append(_list(ranking.notes))
    if ranking.reason:
        return parts
    parts.append(f"{ABOUT}:")
    parts.append(layout(*share_rows(ranking)))
    orders = list(ranking.orders)
    if len(orders) > MAX_PAIRS:  # the tables have all of them; here, only neighbours
        names = list(ranking.consensus)
        orders = [o for o in orders if names.index(o.second) == names.index(o.first) + 1]
    parts.append(_list([order_sentence(order) for order in orders]))
    if ranking.interactions:
        unit = "the score's unit" if scale == "score" else "powers of ten of the loss"
        parts.append(f"SHAP interaction values, mean |phi_ij| in {unit}:")
        some = ranking.interactions[:MAX_PAIRS]
        parts.append(_list([interaction_sentence(interaction) for interaction in some]))
    return parts


def _pairs(losses: Sequence[PairLoss]) -> list[str]:
    summaries = summarize(losses)
    if not summaries:
        return [
            "Measured interactions: none; they require the configuration with every part at its "
            "widest, single parts quantized, and pairs of them."
        ]
    return ["Measured interactions:", _list([pair_sentence(p) for p in summaries[:MAX_PAIRS]])]


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
