"""Tables as text."""

import re
from collections.abc import Sequence

NUMBER = re.compile(r"[-+]?[\d,]*\.?\d*(e[-+]?\d+)?%?|nan|-")


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """One line per row, with columns as wide as their cells and numbers aligned to the right.

    >>> print(aligned(["name", "bits"], [["vit", "4"], ["llm", "16"]]))
    name  bits
    vit      4
    llm     16
    """
    lines = [head, *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    right = [all(NUMBER.fullmatch(row[k]) for row in rows) for k in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numbers else cell.ljust(width)
            for cell, width, numbers in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table.

    >>> print(markdown(["name", "bits"], [["vit", "4"]]))
    | name | bits |
    |---|---|
    | vit | 4 |
    """
    lines = [head, ["---"] * len(head), *rows]
    texts = ["| " + " | ".join(line) + " |" for line in lines]
    texts[1] = texts[1].replace(" ", "")
    return "\n".join(texts)


def number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals; - for None.

    >>> number(0.12345), number(None)
    ('0.123', '-')
    """
    return "-" if value is None else f"{value:.{digits}f}"


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """A score with its 95% interval.

    >>> interval(94.25, 92, 96), interval(1.5, None, None)
    ('94.25 (92 to 96)', '1.5')
    """
    if value is None:
        return "-"
    return f"{value:.4g}" + ("" if low is None else f" ({low:.4g} to {high:.4g})")
