"""Results of elsewhere: a CSV or JSON table of configurations, checked row by row."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmq.allocation.allocation import ALLOWED_BITS, UNQUANTIZED, BitAllocation, check_bits
from mmq.analysis.table_file import read_table
from mmq.errors import InputError, unknown
from mmq.models.size import GIB
from mmq.system.hashing import digest

BITS_COLUMN = re.compile(r"bits[._](?P<before>.+)|(?P<after>.+)[._]bits")
PART = re.compile(r"\w+(\.\w+)*")
RESERVED = ("score", "bpw", "size_gib")  # names of metrics that mmq gives itself


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what. bits: columns by part. scores: further metrics."""

    bits: Mapping[str, str]
    score: str
    scores: tuple[str, ...] = ()
    bpw: str = ""

    @property
    def all(self) -> list[str]:
        """Every column that is read."""
        return [*self.bits.values(), self.score, *self.scores, *([self.bpw] if self.bpw else [])]


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A configuration and its scores. metrics: by name, the one that counts as "score", too."""

    line: int
    allocation: BitAllocation
    metrics: Mapping[str, float]

    @property
    def key(self) -> str:
        """A hash of the content, without the line."""
        return digest([self.allocation.as_dict(), dict(self.metrics)])


@dataclass(frozen=True, slots=True)
class ResultTable:
    """A file's good rows, and what is wrong with the others: (line, reason)."""

    columns: Columns
    rows: Sequence[ResultRow]
    problems: Sequence[tuple[int, str]]
    unread: Sequence[str]

    @property
    def parts(self) -> list[str]:
        """What has a width of its own."""
        return list(self.columns.bits)

    @property
    def problem_text(self) -> str:
        """A line a bad row."""
        return "\n".join(f"  line {line}: {reason}" for line, reason in self.problems)


def parse_pairs(name: str, text: str) -> dict[str, str]:
    """Pairs from "vit=vit_bits,llm=llm_bits"; {} from ""; InputError for anything else.

    >>> parse_pairs("bits-columns", "vit=vit_bits, llm=l")
    {'vit': 'vit_bits', 'llm': 'l'}
    """
    found: dict[str, str] = {}
    for each in (part.strip() for part in text.split(",") if part.strip()):
        key, value = (piece.strip() for piece in each.partition("=")[::2])
        if not key or not value or key in found:
            raise InputError(f"{name}: {each!r} is not of the form name=value, or given twice")
        found[key] = value
    return found


def metric_name(column: str) -> str:
    """A column's name with what MLflow does not allow in metrics replaced.

    >>> metric_name("R@1 (text)")
    'R_1 _text_'
    """
    return re.sub(r"[^\w./ -]", "_", column, flags=re.ASCII)


def parse_sizes(text: str) -> dict[str, float]:
    """Parameters by part, and of the whole model as "all"; {} from ""."""
    found: dict[str, float] = {}
    for part, value in parse_pairs("sizes", text).items():
        try:
            found[part] = float(value)
        except ValueError as error:
            raise InputError(f"sizes: {part}={value} is not a number of parameters") from error
    if found and "all" not in found:
        raise InputError("sizes: all=... is missing, the parameters of the whole model")
    if found and sum(v for k, v in found.items() if k != "all") > found["all"]:
        raise InputError("sizes: the parts have more parameters than the whole model (all)")
    return found


def read_results(
    path: Path,
    bits: Mapping[str, str] | None = None,
    score: str = "",
    scores: Sequence[str] = (),
    bpw: str = "",
    sizes: Mapping[str, float] | None = None,
) -> ResultTable:
    """Read and check a table; what is not given is found by the columns' names.

    bits: columns by part; else those named vit_bits, bits_vit or bits.vit. score: else `score`.
    bpw: its column; else `bpw`, or computed from sizes (`parse_sizes`). InputError for a file or a
    column that cannot be read; bad rows are in the result.
    """
    table = list(read_table(path))
    if not table:
        raise InputError(f"{path}: it has no rows")
    cells = (row for _, row in table if isinstance(row, dict))
    known = list(dict.fromkeys(name for row in cells for name in row if name))
    columns = _columns(known, bits, score, tuple(scores), bpw if not sizes or bpw else None)
    chosen = ["bits-columns"] * bool(bits) + ["score"] * bool(score) + ["bpw"] * bool(bpw)
    _check_spellings([row for _, row in table if isinstance(row, dict)], known, columns, chosen)
    if sizes:
        _check_sizes(columns, sizes)
    rows, problems = [], []
    for line, row in table:
        try:
            rows.append(_row(line, row, columns, sizes or {}))
        except InputError as error:
            problems.append((line, str(error)))
    unread = [name for name in known if name not in columns.all]
    return ResultTable(columns, rows, problems, unread)


def _columns(
    known: Sequence[str],
    bits: Mapping[str, str] | None,
    score: str,
    scores: tuple[str, ...],
    bpw: str | None,
) -> Columns:
    if not bits:
        matches = [(BITS_COLUMN.fullmatch(name), name) for name in known]
        found: dict[str, str] = {}
        for match, name in matches:
            if (
                match
                and (other := found.setdefault(match["before"] or match["after"], name)) != name
            ):
                raise _two_spellings("bits-columns", other, name)
        bits = found
        if not bits:
            raise InputError(
                "bits-columns: no column is named like vit_bits; name them like vit=NAME,llm=NAME "
                f"(columns: {', '.join(known)})"
            )
    if not score and "score" not in known:
        raise InputError(f"score: which column is it? (columns: {', '.join(known)})")
    if bpw == "":
        bpw = "bpw" if "bpw" in known else ""
    columns = Columns(bits, score or "score", scores, bpw or "")
    for name in columns.all:
        if name not in known:
            raise unknown("column", name, known)
    for part in bits:
        if not PART.fullmatch(part):
            raise InputError(f"bits-columns: {part!r} is not the name of a part (e.g. vit)")
    for k, name in enumerate(scores):
        for other in (columns.score, *scores[:k]):
            if metric_name(name) == metric_name(other) and (name != other or other in scores[:k]):
                raise InputError(
                    f"scores: {other!r} and {name!r} are one metric; give one of them"
                )
    for name in (columns.score, *scores):
        if metric_name(name) in RESERVED and name != columns.score:
            raise InputError(f"scores: {name!r} cannot be the name of a metric; rename the column")
    return columns


def _check_spellings(
    rows: Iterable[Mapping[str, Any]],
    known: Iterable[str],
    columns: Columns,
    chosen: Iterable[str],
) -> None:
    """InputError where another column may be meant as well as one that was found by its name.

    chosen: the options by which the user chose columns.
    """
    found = {"score": [columns.score], "bpw": [columns.bpw], "bits-columns": columns.bits.values()}
    for option, names in found.items():
        plain = {_plain(name): name for name in names if option not in chosen}
        for name in known:
            if name in columns.all or (own := plain.get(_plain(name))) is None:
                continue
            if option != "bits-columns" or all(_is_width(row.get(name)) for row in rows):
                raise _two_spellings(option, own, name)


def _plain(column: str) -> str:
    """A column's name without case, separators and "bits".

    >>> _plain("bits.LLM"), _plain("llm_bits"), _plain("LLM")
    ('llm', 'llm', 'llm')
    """
    words = [word for word in re.split(r"[\W_]+", column.lower()) if word]
    return "_".join(word for word in words if word != "bits" or len(words) == 1)


def _is_width(cell: Any) -> bool:
    """Whether a cell could be bits: the name of a model, say, cannot."""
    try:
        return float(cell) in ALLOWED_BITS
    except (TypeError, ValueError):
        return False


def _two_spellings(option: str, one: str, other: str) -> InputError:
    return InputError(
        f"{option}: the columns {one!r} and {other!r} name one thing twice ({_plain(one)}); "
        f"remove or rename one, or choose with --{option}"
    )


def _check_sizes(columns: Columns, sizes: Mapping[str, float]) -> None:
    if columns.bpw:
        raise InputError("sizes: bpw is read from a column already; give one of the two")
    for part in columns.bits:
        if part not in sizes:
            raise InputError(f"sizes: {part}=... is missing, its quantized parameters")
    for part in sizes:
        if part not in (*columns.bits, "all"):
            raise unknown("part", part, [*columns.bits, "all"])


def _row(line: int, cells: Any, columns: Columns, sizes: Mapping[str, float]) -> ResultRow:
    """A checked row; InputError with all that is wrong with it."""
    if not isinstance(cells, dict):
        raise InputError(f"{str(cells)[:60]} is not a row with named cells")
    wrong: list[str] = []
    if None in cells:  # csv's key for cells beyond the head
        wrong.append("it has more cells than the head")
    widths: dict[str, int] = {}
    for part, name in columns.bits.items():
        value = _number(cells, name, wrong)
        if value is not None and value != int(value):
            wrong.append(f"{name}: {value} is not a whole number")
        elif value is not None:
            try:
                widths[part] = check_bits(int(value))
            except InputError as error:
                wrong.append(f"{name}: {str(error).removeprefix('bits: ')}")
    score = _number(cells, columns.score, wrong)
    metrics = {"score": score, metric_name(columns.score): score}
    metrics |= {metric_name(name): _number(cells, name, wrong) for name in columns.scores}
    if columns.bpw:
        metrics["bpw"] = _number(cells, columns.bpw, wrong)
    if wrong:
        raise InputError("; ".join(wrong))
    found = {name: value for name, value in metrics.items() if value is not None}
    if sizes:
        found["bpw"] = bits_per_weight(widths, sizes)
        found["size_gib"] = round(found["bpw"] * sizes["all"] / GIB, 6)
    return ResultRow(line, BitAllocation.of(widths), found)


def bits_per_weight(widths: Mapping[str, int], sizes: Mapping[str, float]) -> float:
    """Bits per weight over all parameters; those in no part have 16.

    >>> bits_per_weight({"vit": 4}, {"vit": 50, "all": 100})
    10.0
    """
    saved = sum((UNQUANTIZED - bits) * sizes[part] for part, bits in widths.items())
    return round(UNQUANTIZED - saved / sizes["all"], 6)


def _number(cells: Mapping[str, Any], name: str, wrong: list[str]) -> float | None:
    """A cell as a finite number; None, and a reason in `wrong`, where it is none."""
    given = cells.get(name)
    if given is None or (isinstance(given, str) and not given.strip()):
        wrong.append(f"{name}: empty")
        return None
    try:
        value = float(given) if not isinstance(given, bool) else math.nan
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        wrong.append(f"{name}: {given!r} is not a finite number")
        return None
    return value
