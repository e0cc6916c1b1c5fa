"""Several tables side by side: on all configurations, and on those that all share."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mmq.analysis.importance import Ranking, rank
from mmq.analysis.settings import DEFAULTS, Settings
from mmq.analysis.table import Table
from mmq.errors import InputError

CLOSE = 2.0  # points of importance within which two tables count as equal


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Importances on the scores, raw and matched, in the tables' order.

    raw: on all configurations of each table. matched: on those that all share (and on the parts
    that all have); the same as raw if the designs are equal. differences: what one design has and
    another lacks. effect: of the differences on the importances; "" if the designs are equal.
    """

    raw: Sequence[Ranking]
    matched: Sequence[Ranking]
    shared: int
    differences: Sequence[str]
    effect: str

    @property
    def warning(self) -> str:
        """The differences and their effect as one text; "" if the designs are equal."""
        if not self.differences:
            return ""
        return f"The designs differ: {'; '.join(self.differences)}. {self.effect}"


def compare(
    tables: Sequence[Table],
    settings: Settings = DEFAULTS,
    raw: Sequence[Ranking] | None = None,
) -> Comparison:
    """Compare two or more tables; raw: their rankings on the scores, if already computed."""
    if len(tables) < 2:
        raise InputError(f"a comparison needs at least two tables, not {len(tables)}")
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise InputError(f"tables: names must differ, but these are given: {', '.join(names)}")
    raw = [rank(table, "score", settings) for table in tables] if raw is None else raw
    differences = design_differences(tables)
    matched_tables = match(tables)
    shared = matched_tables[0].n
    if not differences:
        return Comparison(raw, raw, shared, [], "")
    matched = [rank(table, "score", settings) for table in matched_tables]
    return Comparison(raw, matched, shared, differences, _effect(raw, matched, shared))


def match(tables: Sequence[Table]) -> list[Table]:
    """The tables on the parts that all have and the configurations that all share.

    If another table lacks a part, only rows with this part at its widest (unquantized) count.
    """
    common = _common_parts(tables)
    if not common:
        raise InputError("the tables have no part in common; compare tables of the same model")
    reduced = []
    for table in tables:
        other = [k for k, part in enumerate(table.parts) if part not in common]
        widest = table.bits.max(axis=0)[other]
        rows = np.flatnonzero((table.bits[:, other] == widest).all(axis=1))
        reduced.append(table.select(rows, common))
    shared = set.intersection(*(set(map(tuple, table.bits)) for table in reduced))
    return [
        table.select(np.array([k for k, b in enumerate(table.bits) if tuple(b) in shared], int))
        for table in reduced
    ]


def _common_parts(tables: Sequence[Table]) -> list[str]:
    return [p for p in tables[0].parts if all(p in table.parts for table in tables[1:])]


def design_differences(tables: Sequence[Table]) -> list[str]:
    """What one table's configurations have and another's lack, one clause each.

    Parts first, then widths, then configurations of widths that all have.
    """
    common = _common_parts(tables)
    differences = []
    parts = dict.fromkeys(part for table in tables for part in table.parts)
    for table in tables:
        differences += [f"{table.name} has no {part}" for part in parts if part not in table.parts]
    widths = {
        (table.name, part): set(table.bits[:, table.parts.index(part)])
        for table in tables
        for part in common
    }
    for table in tables:
        for part in common:
            every = set().union(*(widths[other.name, part] for other in tables))
            lacks = sorted(every - widths[table.name, part])
            if lacks:
                text = ",".join(f"{bits:g}" for bits in lacks)
                differences.append(f"{table.name} has no {part}={text}")
    sizes = {table.n for table in tables}
    shared = match(tables)[0].n if common else 0
    if sizes != {shared}:
        counts = ", ".join(f"{table.n} of {table.name}" for table in tables)
        differences.append(f"{shared} configurations are shared ({counts})")
    return differences


def _effect(raw: Sequence[Ranking], matched: Sequence[Ranking], shared: int) -> str:
    """The effect of the designs on the orders of the importances and the gaps between tables."""
    refused = [r for r in (*raw, *matched) if r.reason]
    if refused:
        one = refused[0]
        where = "on the shared configurations" if one in matched else "on all its configurations"
        return f"{one.table.name} cannot be ranked {where}: {one.reason}."
    pairs = combinations(range(len(raw)), 2)
    texts = [_gap(pair, raw, matched, shared) for pair in pairs]
    for before, after in zip(raw, matched, strict=True):
        old, new = [[p for p in r.consensus if p in after.consensus] for r in (before, after)]
        if old != new:
            texts.append(
                f"{before.table.name}: {' > '.join(old)} becomes {' > '.join(new)} when matched"
                f"{_doubt(after)}."
            )
    return " ".join(texts)


def _doubt(ranking: Ranking) -> str:
    unsure = [f"{o.first} and {o.second}" for o in ranking.orders if not o.separable]
    return f" ({', '.join(unsure)} not separable there)" if unsure else ""


def _gap(
    pair: tuple[int, int], raw: Sequence[Ranking], matched: Sequence[Ranking], shared: int
) -> str:
    """The distance between two tables' importances, raw and matched, at the part with the most."""
    a, b = pair

    def gap(rankings: Sequence[Ranking], part: str) -> float:
        return abs(rankings[a].consensus[part].value - rankings[b].consensus[part].value)

    parts = matched[a].consensus
    part = max(parts, key=lambda p: max(gap(raw, p), gap(matched, p)))
    before, after = gap(raw, part), gap(matched, part)
    if max(before, after) < CLOSE:
        meaning = "equal on both"
    elif after <= before / 2:
        meaning = "most of the difference comes from the designs"
    elif after <= before - CLOSE:
        meaning = "part of the difference comes from the designs"
    elif after >= before + CLOSE:
        meaning = "the designs hide part of the difference"
    else:
        meaning = "the designs do not explain the difference"
    return (
        f"Between {raw[a].table.name} and {raw[b].table.name} the importance of {part} differs by "
        f"{before:.0f} points on all configurations, by {after:.0f} on the {shared} shared ones: "
        f"{meaning}."
    )
