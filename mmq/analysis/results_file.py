"""External results: a CSV or JSON table of configurations, validated row by row."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmq.allocation.allocation import ALLOWED_BITS, UNQUANTIZED, BitAllocation, check_bits
from mmq.allocation.parts import OPTIONAL
from mmq.analysis.table_file import read_table
from mmq.errors import InputError, unknown
from mmq.system.disk import BITS_PER_GIB
from mmq.system.hashing import digest

BITS_COLUMN = re.compile(r"bits[._](?P<before>.+)|(?P<after>.+)[._]bits")
PART = re.compile(r"\w+(\.\w+)*")
COMPONENTS = ("vit", "qformer", "connector", "llm", *OPTIONAL)  # that families have
RESERVED = ("score", "bpw", "size_gib")  # metrics that mmq computes


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns to read. bits: columns by part. scores: further metrics."""

    bits: Mapping[str, str]
    score: str
    scores: tuple[str, ...] = ()
    bpw: str = ""

    @property
    def all(self) -> list[str]:
        """All columns to read."""
        return [*self.bits.values(), self.score, *self.scores, *([self.bpw] if self.bpw else [])]


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A configuration and its scores. metrics: by name, the main one also as "score"."""

    line: int
    allocation: BitAllocation
    metrics: Mapping[str, float]

    @property
    def key(self) -> str:
        """A hash of the content, without the line."""
        return digest([self.allocation.as_dict(), dict(self.metrics)])


@dataclass(frozen=True, slots=True)
class ResultTable:
    """A file's valid rows, and the problems of the others: (line, reason)."""

    columns: Columns
    rows: Sequence[ResultRow]
    problems: Sequence[tuple[int, str]]
    unread: Sequence[str]

    @property
    def parts(self) -> list[str]:
        """The parts with a width of their own."""
        return list(self.columns.bits)

    @property
    def problem_text(self) -> str:
        """One line per invalid row."""
        return "\n".join(f"  line {line}: {reason}" for line, reason in self.problems)


def parse_pairs(name: str, text: str) -> dict[str, str]:
    """Pairs from "vit=vit_bits,llm=llm_bits"; {} from ""; InputError for anything else.

    >>> parse_pairs("bits-columns", "vit=vit_bits, llm=l")
    {'vit': 'vit_bits', 'llm': 'l'}
    """
    pairs: dict[str, str] = {}
    for pair in (part.strip() for part in text.split(",") if part.strip()):
        key, value = (piece.strip() for piece in pair.partition("=")[::2])
        if not key or not value or key in pairs:
            raise InputError(f"{name}: {pair!r} is not of the form name=value, or is a duplicate")
        pairs[key] = value
    return pairs


def metric_name(column: str) -> str:
    """A column's name, without characters that MLflow does not allow in metrics.

    >>> metric_name("R@1 (text)")
    'R_1 _text_'
    """
    return re.sub(r"[^\w./ -]", "_", column, flags=re.ASCII)


def parse_sizes(text: str) -> dict[str, float]:
    """Parameters by part, and of the whole model as "all"; {} from ""."""
    sizes: dict[str, float] = {}
    for part, value in parse_pairs("sizes", text).items():
        try:
            sizes[part] = float(value)
        except ValueError as error:
            raise InputError(f"sizes: {part}={value} is not a number of parameters") from error
    if sizes and "all" not in sizes:
        raise InputError("sizes: all=... is missing; give the parameters of the whole model")
    if sizes and sum(v for k, v in sizes.items() if k != "all") > sizes["all"]:
        raise InputError("sizes: the parts have more parameters than the whole model (all)")
    return sizes


def read_results(
    path: Path,
    bits: Mapping[str, str] | None = None,
    score: str = "",
    scores: Sequence[str] = (),
    bpw: str = "",
    sizes: Mapping[str, float] | None = None,
) -> ResultTable:
    """Read and check a table.

    bits: columns by part; by default those named vit_bits, bits_vit or bits.vit, or else vit.
    score: its column; by default `score`. bpw: its column; by default `bpw`, or computed from
    sizes (`parse_sizes`). InputError for a file or a column that cannot be read; invalid rows are
    in the result.
    """
    table = list(read_table(path))
    if not table:
        raise InputError(f"{path}: it has no rows")
    cells = (row for _, row in table if isinstance(row, dict))
    names = list(dict.fromkeys(name for row in cells for name in row if name))
    columns = _columns(names, bits, score, tuple(scores), bpw if not sizes or bpw else None)
    options = ["bits-columns"] * bool(bits) + ["score"] * bool(score) + ["bpw"] * bool(bpw)
    _check_spellings([row for _, row in table if isinstance(row, dict)], names, columns, options)
    if sizes:
        _check_sizes(columns, sizes)
    rows, problems = [], []
    for line, row in table:
        try:
            rows.append(_row(line, row, columns, sizes or {}))
        except InputError as error:
            problems.append((line, str(error)))
    unread = [name for name in names if name not in columns.all]
    return ResultTable(columns, rows, problems, unread)


def _columns(
    available: Sequence[str],
    bits: Mapping[str, str] | None,
    score: str,
    scores: tuple[str, ...],
    bpw: str | None,
) -> Columns:
    if not bits:
        matches = [(BITS_COLUMN.fullmatch(name), name) for name in available]
        by_part: dict[str, str] = {}
        for match, name in matches:
            if (
                match
                and (other := by_part.setdefault(match["before"] or match["after"], name)) != name
            ):
                raise _two_spellings("bits-columns", other, name)
        bits = by_part or {
            name: name for name in available if name.partition(".")[0] in COMPONENTS
        }
        if not bits:
            raise InputError(
                "bits-columns: no column has a name like vit_bits or vit; give vit=NAME,llm=NAME "
                f"(columns: {', '.join(available)})"
            )
    if not score and "score" not in available:
        raise InputError(
            f"score: there is no column named score; choose one of {', '.join(available)}"
        )
    if bpw == "":
        bpw = "bpw" if "bpw" in available else ""
    columns = Columns(bits, score or "score", scores, bpw or "")
    for name in columns.all:
        if name not in available:
            raise unknown("column", name, available)
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
    available: Iterable[str],
    columns: Columns,
    options: Iterable[str],
) -> None:
    """InputError if the name of a default column is ambiguous.

    options: those with which the user named columns.
    """
    used = {"score": [columns.score], "bpw": [columns.bpw], "bits-columns": columns.bits.values()}
    for option, names in used.items():
        plain = {_plain(name): name for name in names if option not in options}
        for name in available:
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
    """Whether a cell could be a number of bits."""
    try:
        return float(cell) in ALLOWED_BITS
    except (TypeError, ValueError):
        return False


def _two_spellings(option: str, one: str, other: str) -> InputError:
    return InputError(
        f"{option}: the columns {one!r} and {other!r} have the same meaning ({_plain(one)}); "
        f"remove or rename one, or choose with --{option}"
    )


def _check_sizes(columns: Columns, sizes: Mapping[str, float]) -> None:
    if columns.bpw:
        raise InputError("sizes: bpw is already read from a column; give one of the two")
    for part in columns.bits:
        if part not in sizes:
            raise InputError(f"sizes: {part}=... is missing; give its quantized parameters")
    for part in sizes:
        if part not in (*columns.bits, "all"):
            raise unknown("part", part, [*columns.bits, "all"])


def _row(line: int, cells: Any, columns: Columns, sizes: Mapping[str, float]) -> ResultRow:
    """A validated row; InputError with all of its problems."""
    if not isinstance(cells, dict):
        raise InputError(f"{str(cells)[:60]} is not a row with named cells")
    wrong: list[str] = []
    if None in cells:  # csv's key for cells beyond the header
        wrong.append("it has more cells than the header")
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
    values = {name: value for name, value in metrics.items() if value is not None}
    if sizes:
        values["bpw"] = bits_per_weight(widths, sizes)
        values["size_gib"] = round(values["bpw"] * sizes["all"] / BITS_PER_GIB, 6)
    return ResultRow(line, BitAllocation.of(widths), values)


def bits_per_weight(widths: Mapping[str, int], sizes: Mapping[str, float]) -> float:
    """Bits per weight over all parameters; those outside of parts have 16.

    >>> bits_per_weight({"vit": 4}, {"vit": 50, "all": 100})
    10.0
    """
    saved = sum((UNQUANTIZED - bits) * sizes[part] for part, bits in widths.items())
    return round(UNQUANTIZED - saved / sizes["all"], 6)


def _number(cells: Mapping[str, Any], name: str, wrong: list[str]) -> float | None:
    """A cell as a finite number; None, with a reason added to `wrong`, for anything else."""
    cell = cells.get(name)
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        wrong.append(f"{name}: empty")
        return None
    try:
        value = float(cell) if not isinstance(cell, bool) else math.nan
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        wrong.append(f"{name}: {cell!r} is not a finite number")
        return None
    return value
