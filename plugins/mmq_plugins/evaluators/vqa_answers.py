"""How VQA accuracy compares an answer with those of the annotators, by one of two rules.

Normalization (VQA evaluation, Antol et al. 2015) removes punctuation and articles, replaces number
words by digits, and adds missing apostrophes to contractions. The accuracy is
min(matches / 3, 1) over the other nine annotators, averaged over leaving each of the ten out.

The rules differ in what they normalize:

- `lavis`: the code of GT-Vision-Lab/VQA before March 2021, which LAVIS still uses. The model's
  answer is always normalized. The annotators' answers lose only their punctuation, and only if
  they differ.
- `official`: GT-Vision-Lab/VQA since commit a013f00. White space is stripped on both sides. If the
  annotators differ, both sides are fully normalized; if they agree, both are compared unchanged
  ("Yes" is not "yes": it may be text in the picture).
"""

import re
from collections.abc import Sequence
from typing import Literal

from mmq.contracts import QuestionSample
from mmq.errors import InputError

Rule = Literal["lavis", "official"]
FEWEST_ANSWERS = (
    4  # with fewer, a unanimous answer cannot score 1: it needs three others that agree
)

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five"),
    *("six", "seven", "eight", "nine", "ten"),
)
DIGITS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)} | {"none": "0"}
_LONE_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
_DIGIT_COMMA = re.compile(r"(\d)(\,)(\d)")
_PERIODS_REMOVED = 32  # the official code passes re.UNICODE (32) where re.sub wants a count

# contraction without one of its apostrophes -> contraction. The official table lacks let's and
# she'd: "lets" and "shed" are words.
_CONTRACTED = """
ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's
I'm I've isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock
oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's
something'd something'll that's there'd there're there's they'd they'll they're they've 'twas
wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've could've
couldn't've hadn't've he'd've I'd've it'd've mightn't've she'd've shouldn't've somebody'd've
someone'd've something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'd've
y'all'll you'd've
"""
CONTRACTIONS = {
    word[:position] + word[position + 1 :]: word
    for word in _CONTRACTED.split()
    for position, letter in enumerate(word)
    if letter == "'"
}
CONTRACTIONS |= {
    "'ow'sat": "'ow's'at",
    "'ows'at": "'ow's'at",
    "ow's'at": "'ow's'at",
    "somebody'd": "somebodyd",
}


def strip_punctuation(text: str) -> str:
    """Remove punctuation next to a space (or anywhere in a text with 1,000), else replace it."""
    result = text
    has_digit_comma = _DIGIT_COMMA.search(text) is not None
    for mark in PUNCTUATION:
        beside_space = mark + " " in text or " " + mark in text
        result = result.replace(mark, "" if beside_space or has_digit_comma else " ")
    return _LONE_PERIOD.sub("", result, count=_PERIODS_REMOVED)


def normalize_words(text: str) -> str:
    """Lower case, digits for number words, no articles, contractions with apostrophes."""
    words = (DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _clean(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalize_answer(text: str) -> str:
    """A fully normalized answer, as in the official code."""
    return normalize_words(strip_punctuation(_clean(text)))


def soft_accuracy(answer: str, annotators: Sequence[str], rule: Rule = "lavis") -> float:
    """Accuracy of one answer, 0 to 1; it takes at least FEWEST_ANSWERS annotators to reach 1."""
    given, references = _compared(answer, annotators, rule)
    matches = [reference == given for reference in references]
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)


def _compared(answer: str, annotators: Sequence[str], rule: Rule) -> tuple[str, list[str]]:
    """An answer and those of the annotators, normalized by the rule."""
    if rule == "lavis":
        disagree = len(set(annotators)) > 1
        return normalize_answer(answer), [
            strip_punctuation(text) if disagree else text for text in annotators
        ]
    references = [_clean(text) for text in annotators]
    if len(set(references)) == 1:
        return _clean(answer), references
    return normalize_answer(answer), [normalize_answer(text) for text in references]


def exact_match(answer: str, right: Sequence[str]) -> bool:
    """Whether an answer equals any of the correct ones after normalization."""
    given = normalize_answer(answer)
    return any(given == normalize_answer(text) for text in right)


def check_rule(rule: str, allowed: Sequence[str]) -> None:
    """ValueError for an unknown rule."""
    if rule not in allowed:
        raise ValueError(f"rule: {rule!r} is not one of {list(allowed)}")


def check_answers(samples: Sequence[QuestionSample]) -> None:
    """InputError for questions without an answer."""
    without = [s.id for s in samples if not any(text.strip() for text in s.answers)]
    if without:
        raise InputError(
            f"{len(without)} of {len(samples)} questions have no answer with text "
            f"(first: {without[0]!r}), so outputs cannot be scored. Add answers, or remove the "
            f"questions."
        )
