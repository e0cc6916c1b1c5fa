"""Tables as text."""

import re
from collections.abc import Sequence

NUMBER = re.compile(r"[-+]?[\d,]*\.?\d*(e[-+]?\d+)?%?|nan|-")


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A line a row, columns as wide as their cells; those that hold numbers end alike.

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
