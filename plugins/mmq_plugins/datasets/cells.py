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
ANSWER_MARKS, OPTION_MARKS = "|;", "\n|;"
SHORT = 5  # words
MARK = "<image>"  # where a model's template has the picture
LETTERED = re.compile(r"[(（]?([A-Ja-j])[).:）．：、]\s*")
LETTER = re.compile(r"[(（]?([A-Za-z])[).:）．：、]?")


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
        value = value.get("answer", value)
    result = []
    for item in value if isinstance(value, (list, tuple)) else [value]:
        plain = item.get("answer", item) if type(item) is dict else item
        if isinstance(plain, (list, tuple, dict)):
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
            return without_letters(pieces)
    return (text,)


def listed_options(question: str) -> tuple[str, ...]:
    r"""The options that a question lists; four empty ones if they cannot be separated.

    >>> listed_options("What is it?\\nOptions: A: a cat, B: a dog")
    ('a cat', 'a dog')
    """
    _, mark, rest = question.rpartition("Options:")
    starts = list(re.finditer(r"(?:^|[\s,(])([A-H])[:.)]\s", rest))
    letters = "".join(match[1] for match in starts)
    if not mark or len(letters) < 2 or letters != "ABCDEFGH"[: len(letters)]:
        return ("",) * 4
    ends = [match.start() for match in starts[1:]] + [len(rest)]
    return tuple(
        rest[match.end() : end].strip(" ,\n") for match, end in zip(starts, ends, strict=True)
    )


def without_letters(options: Sequence[str]) -> tuple[str, ...]:
    """The options without the letters A, B, ... before them, if all have theirs.

    >>> without_letters(["A. red", "B. blue"]), without_letters(["A. red", "C. blue"])
    (('red', 'blue'), ('A. red', 'C. blue'))
    """
    starts = [LETTERED.match(option) for option in options]
    letters = "".join(start[1].upper() for start in starts if start)
    if letters != "ABCDEFGHIJ"[: len(options)]:
        return tuple(options)
    return tuple(o[m.end() :] for o, m in zip(options, starts, strict=True) if m)


def without_marks(question: str, pictures: int) -> str:
    r"""A question without the marks <image>, if there is one per picture, as in LLaVA's data.

    >>> without_marks("<image>\nWhat is it?", 1), without_marks("Is <image> a tag?", 2)
    ('What is it?', 'Is <image> a tag?')
    """
    if question.count(MARK) != pictures:
        return question
    return " ".join(filter(None, (part.strip() for part in question.split(MARK))))


def right_letter(answer: str, options: Sequence[str], place: str, is_letter: bool = False) -> str:
    """The letter of the right option, given as a letter, in brackets or not, or as its text.

    is_letter: the answer is never a text. InputError for a letter that is also the text of another
    option, and for anything else: a number may count from 0 or from 1.
    """
    letters = [chr(ord("A") + k) for k in range(len(options))]
    start = LETTERED.match(answer)
    if start and start[1].upper() in letters:  # "B. a dog"
        text = options[letters.index(start[1].upper())]
        if _folded(answer[start.end() :]) == _folded(text):
            return start[1].upper()
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
