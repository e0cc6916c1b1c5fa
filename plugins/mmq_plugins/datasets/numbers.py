"""Numbers as sheets spell them: decimal commas, and the zeros that pandas adds to integers."""

import re
from collections.abc import Callable, Iterator, Sequence

from mmq_plugins.datasets.cells import is_missing
from mmq_plugins.datasets.records import TableFile, as_text

UNIT = r"(?: ?[%€$£])?"
DECIMAL = re.compile(rf"[-+]?(?:\d+|\d{{1,3}}(?:\.\d{{3}})+),\d+{UNIT}")
THOUSANDS = re.compile(rf"[-+]?[1-9]\d{{0,2}},\d{{3}}{UNIT}")
POINTS = re.compile(rf"[-+]?[1-9]\d{{0,2}}(?:\.\d{{3}})+{UNIT}")
WHOLE = re.compile(r"([-+]?\d+)\.0")
Spelling = Callable[[str], str]
Report = Callable[[str], None]


def decimal_point(text: str) -> str:
    """A number with a decimal point instead of a comma; other texts are unchanged.

    >>> [decimal_point(text) for text in ("3,5", "1.234,5", "1.500", "red, blue")]
    ['3.5', '1234.5', '1500', 'red, blue']
    """
    if DECIMAL.fullmatch(text) or POINTS.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    return text


def whole(text: str) -> str:
    """A whole number without its decimal zero; other texts are unchanged.

    >>> whole("3.0"), whole("3.5"), whole("v3.0")
    ('3', '3.5', 'v3.0')
    """
    match = WHOLE.fullmatch(text)
    return match[1] if match else text


def spelling(table: TableFile, columns: Sequence[str], report: Report) -> Spelling:
    """What turns the numbers in these columns into those with a point, or nothing to change.

    A sheet has decimal commas if commas do not separate its columns and an answer has one for
    certain: 1,234 may mean 1234. pandas writes 3.0 for 3 in a column with empty cells; if all
    answers of a text file are such numbers, they are read as whole numbers.
    """
    if table.decimal_commas and columns:
        return _commas(list(_cells(table, columns)), report)
    first = next(_filled(table, columns), "") if table.is_text and columns else ""
    if not WHOLE.fullmatch(first) or not all(map(WHOLE.fullmatch, _filled(table, columns))):
        return str
    report(f"all answers are whole numbers such as {first}; they are read as {whole(first)}")
    return whole


def _commas(answers: Sequence[str], report: Report) -> Spelling:
    certain = [t for t in answers if DECIMAL.fullmatch(t) and not THOUSANDS.fullmatch(t)]
    changed = [text for text in answers if decimal_point(text) != text]
    if certain:
        report(
            f"{len(changed)} answers with decimal commas are read with points, e.g. {certain[0]} "
            f"as {decimal_point(certain[0])}"
        )
        return decimal_point
    if changed:
        mark = "comma" if "," in changed[0] else "point"
        report(f"answers such as {changed[0]} are not changed: the {mark} may separate thousands")
    return str


def _cells(table: TableFile, columns: Sequence[str]) -> Iterator[str]:
    return (as_text(r.values[column]) for r in table.records(columns) for column in columns)


def _filled(table: TableFile, columns: Sequence[str]) -> Iterator[str]:
    return (text for text in _cells(table, columns) if not is_missing(text))
