"""The complete analysis of one or more tables, and its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmq.analysis.comparison import Comparison, compare
from mmq.analysis.findings import headlines, order_sentence
from mmq.analysis.importance import SCALES, Ranking, rank
from mmq.analysis.interactions import PairLoss, pair_losses
from mmq.analysis.settings import DEFAULTS, Settings
from mmq.analysis.table import Table

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """rankings: by scale, in the tables' order. pairs: the measured interactions of each table.

    comparison: None for a single table.
    """

    tables: Sequence[Table]
    rankings: Mapping[str, Sequence[Ranking]]
    pairs: Sequence[Sequence[PairLoss]]
    comparison: Comparison | None

    @property
    def finding(self) -> str:
        """One line: the importances of every table on the scores."""
        return headlines(self.rankings["score"])


def analyze(tables: Sequence[Table], settings: Settings = DEFAULTS) -> Analysis:
    """Rank the parts of every table on both scales, measure interactions, compare the tables."""
    rankings = {scale: [rank(table, scale, settings) for table in tables] for scale in SCALES}
    pairs = [pair_losses(table, settings.seed) for table in tables]
    several = compare(tables, settings, rankings["score"]) if len(tables) > 1 else None
    return Analysis(tables, rankings, pairs, several)


def table_rows(analysis: Analysis) -> dict[str, Rows]:
    """The results as rows, by name of the logged table."""
    every = [("all", ranking) for rankings in analysis.rankings.values() for ranking in rankings]
    if analysis.comparison is not None and analysis.comparison.differences:
        every += [("shared", ranking) for ranking in analysis.comparison.matched]
    tables = {
        "importance": [row for where, ranking in every for row in _shares(where, ranking)],
        "orders": [row for where, ranking in every for row in _orders(where, ranking)],
        "fits": [_fit(where, ranking) for where, ranking in every],
        "shap_interactions": [
            _named(where, ranking) | asdict(interaction)
            for where, ranking in every
            for interaction in ranking.interactions
        ],
        "measured_interactions": [
            {"table": table.name, **asdict(pair), "excess": pair.excess}
            for table, pairs in zip(analysis.tables, analysis.pairs, strict=True)
            for pair in pairs
        ],
    }
    return {name: [_rounded(row) for row in rows] for name, rows in tables.items() if rows}


def _named(where: str, ranking: Ranking) -> dict[str, Any]:
    return {"table": ranking.table.name, "scale": ranking.scale, "configurations": where}


def _shares(where: str, ranking: Ranking) -> Rows:
    rows = []
    for name, shares in ranking.shares.items():
        sampled = ranking.sampled.get(name, {})
        for part in ranking.consensus:
            row = _named(where, ranking)
            row |= {"measure": name, "part": part, "percent": shares[part].value}
            row |= {"low": shares[part].low, "high": shares[part].high}
            pictures = sampled.get(part)
            row["low (pictures)"] = None if pictures is None else pictures.low
            row["high (pictures)"] = None if pictures is None else pictures.high
            repeated = ranking.repeats.get(part) if name == "permutation" else None
            row["low (repeats)"] = None if repeated is None else repeated.low
            row["high (repeats)"] = None if repeated is None else repeated.high
            rows.append(row)
    return rows


def _orders(where: str, ranking: Ranking) -> Rows:
    return [
        _named(where, ranking)
        | {
            "first": order.first,
            "second": order.second,
            "agreement (configurations)": order.agreement.get("configurations"),
            "agreement (pictures)": order.agreement.get("samples"),
            "finding": order_sentence(order),
        }
        for order in ranking.orders
    ]


def _fit(where: str, ranking: Ranking) -> dict[str, Any]:
    row = _named(where, ranking) | {"n": ranking.table.n}
    for name, fit in (("forest", ranking.forest), ("linear", ranking.linear)):
        row |= {
            f"R² {name}": None if fit is None else fit.value,
            f"R² {name}, least": None if fit is None else fit.low,
            f"R² {name}, most": None if fit is None else fit.high,
        }
    return row | {"not ranked because": ranking.reason}


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Five digits are enough to display; as Python floats, since numpy's are not JSON."""
    return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()}
