"""The meaning of a table's cells: answers, options, and the letter of the right option."""

import ast
import re
import sys
from collections.abc import Sequence
from typing import Any

from mmq.errors import InputError
from mmq_plugins.datasets.records import as_text, shown

MISSING = {
    "", "nan", "null", "nat", "<na>", "#n/a", "#value!", "#ref!", "#div/0!", "#name?", "#num!",
}  # fmt: skip
LIST = re.compile(r"""\[\s*(?:['"].*['"]|[-+\d.,\s]*)\s*,?\s*\]""", re.DOTALL)
UNCLOSED = re.compile(r"""\[\s*['"]""")
NUMPY = re.compile(r"""['"]\s+['"]""")
DECIMAL = re.compile(r"[-+]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d+ ?%?")
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
ANSWER_MARKS, OPTION_MARKS = "|;", "\n|;"
SHORT = 5  # words
LETTERED = re.compile(r"\(?([A-Ja-j])[).:]\s*")
LETTER = re.compile(r"\(?([A-Za-z])[).:]?")


def is_missing(value: Any) -> bool:
    """Whether a cell is empty, or what a spreadsheet or pandas writes for a missing value."""
    return not isinstance(value, (list, dict)) and as_text(value).lower() in MISSING


def texts(value: Any, place: str) -> tuple[str, ...]:
    """The texts of a cell: one, or those of a list, also if it is written as a text.

    >>> texts("['red', 'crimson']", ""), texts("red", ""), texts([{"answer": 3.0}], "")
    (('red', 'crimson'), ('red',), ('3',))
    """
    if isinstance(value, str):
        value = _listed(value.strip(), place)
    if isinstance(value, dict):
        value = [value]
    result = []
    for item in value if isinstance(value, (list, tuple)) else [value]:
        plain = item.get("answer") if type(item) is dict else item
        if isinstance(plain, (list, dict)):
            raise InputError(f"data: {place}: {shown(plain)} is not a text or a number")
        result.append(sys.intern(as_text(plain)))  # a million answers are a few thousand texts
    return tuple(result)


def _listed(text: str, place: str) -> Any:
    """The list that a text spells in Python or JSON; other texts are unchanged."""
    if LIST.fullmatch(text):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise InputError(f"data: {place}: {shown(text)} is not a valid list") from error
        if NUMPY.search(text) and len(value) == 1:
            raise InputError(
                f"data: {place}: {shown(text)} is a NumPy array without commas, so its texts "
                f"cannot be separated; write a list with commas"
            )
        return value
    if UNCLOSED.match(text):
        raise InputError(f"data: {place}: {shown(text)} is not a valid list; close it with ']")
    return text


def several(text: str, marks: str = ANSWER_MARKS) -> tuple[str, ...]:
    """The answers that a cell separates by | or ;, or else the one that it is.

    Pieces behind a semicolon must be short: a sentence may contain one.

    >>> several("red|crimson"), several("red; dark red"), several("a=1;")
    (('red', 'crimson'), ('red', 'dark red'), ('a=1;',))
    """
    for mark in marks:
        if mark not in text:
            continue
        pieces = tuple(piece.strip() for piece in text.split(mark))
        short = mark == "|" or all(len(piece.split()) <= SHORT for piece in pieces)
        if all(pieces) and short:
            return pieces
    return (text,)


def listed(text: str) -> tuple[str, ...]:
    r"""The options that a cell separates by line breaks, | or ;, without their letters.

    >>> listed("A. red\nB. dark blue"), listed("red|blue"), listed("red")
    (('red', 'dark blue'), ('red', 'blue'), ('red',))
    """
    for mark in OPTION_MARKS:
        pieces = [piece.strip() for piece in text.split(mark) if piece.strip()]
        if len(pieces) > 1:
            starts = [LETTERED.match(piece) for piece in pieces]
            letters = "".join(start[1].upper() for start in starts if start)
            if letters == "ABCDEFGHIJ"[: len(pieces)]:
                pieces = [p[m.end() :] for p, m in zip(pieces, starts, strict=True) if m]
            return tuple(pieces)
    return (text,)


def decimal_point(text: str) -> str:
    """A number with a decimal point instead of a comma; other texts are unchanged.

    >>> decimal_point("3,5"), decimal_point("1.234,5"), decimal_point("red, blue")
    ('3.5', '1234.5', 'red, blue')
    """
    return text.replace(".", "").replace(",", ".") if DECIMAL.fullmatch(text) else text


def is_decimal(text: str) -> bool:
    """Whether a text is a number with a decimal comma for certain: 1,234 may mean 1234."""
    return DECIMAL.fullmatch(text) is not None and THOUSANDS.fullmatch(text) is None


def right_letter(answer: str, options: Sequence[str], place: str, is_letter: bool = False) -> str:
    """The letter of the right option, given as a letter, in brackets or not, or as its text.

    is_letter: the answer is never a text. InputError for a letter that is also the text of another
    option, and for anything else: a number may count from 0 or from 1.
    """
    letters = [chr(ord("A") + k) for k in range(len(options))]
    match = LETTER.fullmatch(answer)
    letter = match[1].upper() if match and match[1].upper() in letters else ""
    if letter and is_letter:
        return letter
    same = [letters[k] for k, o in enumerate(options) if _folded(o) == _folded(answer)]
    if letter and same not in ([], [letter]):
        raise InputError(
            f"data: {place}: the answer {shown(answer)} is a letter and also the text of the "
            f"option {same[0]}; write the letter in brackets: ({letter}) or ({same[0]})"
        )
    if letter or len(same) == 1:
        return letter or same[0]
    hint = "; a number may count from 0 or from 1" if answer.isdecimal() else ""
    raise InputError(
        f"data: {place}: the answer {shown(answer)} is not a letter from A to {letters[-1]}, and "
        f"not the text of one option{hint}; write the letter"
    )


def _folded(text: str) -> str:
    return " ".join(text.lower().split())
