"""The findings of an analysis in plain sentences."""

from collections.abc import Sequence

from mmq.analysis.comparison import Comparison
from mmq.analysis.importance import Interaction, Order, Ranking, Share
from mmq.analysis.interactions import PairSummary

MAX_NAMED = 6  # parts in a line
RESAMPLED = {"configurations": "of configurations", "samples": "of pictures"}


def headline(ranking: Ranking, named: bool = True) -> str:
    """One line: the importances and how certain their order is, or why there is no ranking."""
    name = f"{ranking.table.name}: " if ranking.table.name and named else ""
    if ranking.reason:
        return f"{name}no ranking: {ranking.reason}"
    shares = [(part, share.value) for part, share in ranking.consensus.items()]
    text = ", ".join(f"{part} {_percent(value)}" for part, value in shares[:MAX_NAMED])
    if rest := shares[MAX_NAMED:]:
        more = _percent(sum(value for _, value in rest))
        return f"{name}{text}, {len(rest)} others {more} of the importance"
    return f"{name}{text} of the importance ({order_text(ranking)})"


def order_text(ranking: Ranking) -> str:
    """The order of the parts; those that are not separable share a rank.

    A part ranks below others only if it is separable from all of them.
    """
    parts = list(ranking.consensus)
    unsure = {(o.first, o.second) for o in ranking.orders if not o.separable}
    places: list[list[str]] = []
    for part in parts:
        if places and any((above, part) in unsure for above in places[-1]):
            places[-1].append(part)
        else:
            places.append([part])
    text = " > ".join(" ~ ".join(place) for place in places)
    if len(places) == 1 and len(parts) > 1:
        return f"{text}: not separable with this data"
    return f"{text}; ~: not separable with this data" if "~" in text else text


def order_sentence(order: Order) -> str:
    """Whether one part matters more than another, and how many resamples agree.

    >>> order_sentence(Order("llm", "vit", {"configurations": 0.97}))
    'llm > vit, 97% of resamples'
    >>> order_sentence(Order("llm", "vit", {"configurations": 0.61}))
    'llm and vit are not separable with this data (llm ahead in 61% of resamples)'
    """
    if len(order.agreement) == 1:
        (share,) = order.agreement.values()
        text = f"{_agreed(share)} of resamples"
    else:
        text = " and ".join(
            f"{_agreed(share)} of resamples {RESAMPLED[kind]}"
            for kind, share in order.agreement.items()
        )
    if order.separable:
        return f"{order.first} > {order.second}, {text}"
    pair = f"{order.first} and {order.second}"
    return f"{pair} are not separable with this data ({order.first} ahead in {text})"


def fit_sentence(ranking: Ranking) -> str:
    """How well the forest and the linear model predict held-out configurations."""
    if ranking.forest is None or ranking.linear is None:
        return ""
    return (
        f"Held-out R²: forest {ranking.forest.value:.2f} "
        f"({ranking.forest.low:.2f} to {ranking.forest.high:.2f} over splits), "
        f"linear {ranking.linear.value:.2f}; n = {ranking.table.n} configurations"
    )


def pair_sentence(pair: PairSummary) -> str:
    """How far the losses of two parts are from additive."""
    most = pair.most
    text = (
        f"{pair.first} x {pair.second}: joint loss minus the sum of single losses is "
        f"{pair.mean:+.3g} on average (n = {pair.n} pairs of widths)"
    )
    if pair.mean_can_add is not None and pair.n_can_add < pair.n:
        text += (
            f", {pair.mean_can_add:+.3g} where the score can lose as much (n = {pair.n_can_add})"
        )
    text += (
        f"; largest at {most.first}={most.first_bits} {most.second}={most.second_bits}: "
        f"{most.joint:.3g} - ({most.first_loss:.3g}) - ({most.second_loss:.3g}) = "
        f"{most.excess:+.3g}"
    )
    if pair.above is not None:
        text += f"; 95% interval above 0 in {pair.above}, below 0 in {pair.below} of {pair.n}"
    return text


def interaction_sentence(interaction: Interaction) -> str:
    """A pair's mean |SHAP interaction value|."""
    size = share_text(Share(interaction.value, interaction.low, interaction.high), 3)
    return f"{interaction.first} x {interaction.second}: {size}"


def share_text(share: Share, digits: int = 1) -> str:
    """A number with its interval.

    >>> share_text(Share(50.33, 45.1, 55.72))
    '50.3 (45.1 to 55.7)'
    """
    text = f"{share.value:.{digits}f}"
    if share.low is None or share.high is None:
        return text
    return f"{text} ({share.low:.{digits}f} to {share.high:.{digits}f})"


def share_rows(ranking: Ranking) -> tuple[list[str], list[list[str]]]:
    """Head and cells of a table of percentages, one row per part."""
    head = ["part", *ranking.shares]
    rows = [
        [part, *(share_text(ranking.shares[name][part]) for name in ranking.shares)]
        for part in ranking.consensus
    ]
    return head, rows


def comparison_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Head and cells: the consensus of every table, raw and matched side by side."""
    parts = list(dict.fromkeys(p for r in comparison.raw for p in r.table.parts))
    head = ["table", "part", "raw", "n", "matched", "n matched"]
    rows = []
    for raw, matched in zip(comparison.raw, comparison.matched, strict=True):
        for part in (p for p in parts if p in raw.table.parts):
            cells = [
                share_text(r.consensus[part]) if part in r.consensus else "-"
                for r in (raw, matched)
            ]
            name = raw.table.name
            rows.append([name, part, cells[0], str(raw.table.n), cells[1], str(matched.table.n)])
    return head, rows


def _agreed(share: float) -> str:
    return f"{int(100 * share)}%"  # rounded down: 100% only if all resamples agree


def _percent(value: float) -> str:
    return f"{value:.0f}%" if value >= 10 else f"{value:.1f}%"


def headlines(rankings: Sequence[Ranking]) -> str:
    """The headlines of several tables in one line."""
    return "; ".join(headline(ranking) for ranking in rankings)
