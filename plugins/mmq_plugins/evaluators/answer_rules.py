"""Published rules that compare a short answer with the expected ones; each gives 0 to 1."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

Metric = Literal["exact", "relaxed", "anls", "contains"]
METRICS: tuple[str, ...] = get_args(Metric)
TOLERANCE = 0.05  # of relaxed accuracy
THRESHOLD = 0.5  # ANLS counts lower similarities as 0
FORMULAS = "Handwritten Mathematical Expression Recognition"  # OCRBench's type of HME100k


def exact(output: str, answer: str) -> float:
    """Whether both are equal except for case, white space and one full stop at the end.

    >>> exact("Blue.", "blue"), exact("3.5", "35")
    (1.0, 0.0)
    """
    return float(_folded(output) == _folded(answer))


def _folded(text: str) -> str:
    return " ".join(text.lower().split()).removesuffix(".").rstrip()


def relaxed(output: str, answer: str) -> float:
    """ChartQA's relaxed correctness: numbers within 5%, or else texts equal except for case.

    Masry et al. 2022, section 5.1, after Methani et al. 2020; as in pix2struct's metrics.py: a
    percentage is divided by 100, and an answer of 0 is compared as text.

    >>> relaxed("10.5", "10"), relaxed("50%", "0.5"), relaxed("0.0", "0")
    (1.0, 1.0, 0.0)
    """
    number, expected = _number(output), _number(answer)
    if number is not None and expected:
        return float(abs(number - expected) / abs(expected) <= TOLERANCE)
    return float(output.lower() == answer.lower())


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def anls(output: str, answer: str) -> float:
    """Normalized Levenshtein similarity, 0 below 0.5.

    Biten et al. 2019, equation 1; as in the official script of the Robust Reading Competition,
    which the leaderboards of ST-VQA and DocVQA use. It differs from the equation in two points: a
    similarity of exactly 0.5 counts, and distances are between texts without extra white space,
    but lengths are those of the unchanged texts.

    >>> anls("Hello", "hallo"), anls("ab", "cb"), anls("abc", "xyz")
    (0.8, 0.5, 0.0)
    """
    length = max(len(answer.upper()), len(output.upper()))
    distance = levenshtein(" ".join(answer.lower().split()), " ".join(output.lower().split()))
    similarity = 1 - (distance / length if length else 0.0)
    return similarity if similarity >= THRESHOLD else 0.0


def levenshtein(first: str, second: str) -> int:
    """The number of characters to insert, delete or replace.

    >>> levenshtein("kitten", "sitting")
    3
    """
    if len(first) > len(second):
        first, second = second, first
    row = list(range(len(first) + 1))
    for i, theirs in enumerate(second, 1):
        previous, row[0] = row[0], i
        for j, ours in enumerate(first, 1):
            cost = previous if ours == theirs else 1 + min(previous, row[j], row[j - 1])
            previous, row[j] = row[j], cost
    return row[-1]


def contains(output: str, answer: str) -> float:
    """Whether the output contains the answer, ignoring case: OCRBench's rule (Liu et al. 2023)."""
    answer, output = (text.lower().strip().replace("\n", " ") for text in (answer, output))
    return float(answer in output)


def contains_formula(output: str, answer: str) -> float:
    """OCRBench's rule for formulas: ignoring spaces instead of case."""
    answer, output = (
        text.strip().replace("\n", " ").replace(" ", "") for text in (answer, output)
    )
    return float(answer in output)


RULES: Mapping[str, Callable[[str, str], float]] = {
    "exact": exact, "relaxed": relaxed, "anls": anls, "contains": contains,
}  # fmt: skip


def best(metric: str, output: str, answers: Sequence[str], kind: str = "") -> float:
    """The value for the answer that fits best. kind: of the question, which changes `contains`."""
    rule = contains_formula if metric == "contains" and kind == FORMULAS else RULES[metric]
    return max(rule(output, answer) for answer in answers)
