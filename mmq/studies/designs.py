"""Which allocations a study looks at."""

from collections.abc import Iterator, Sequence

from mmq.allocation import UNTOUCHED, BitAllocation

ALL = "all"  # every component at one width


def untouched(components: Sequence[str]) -> BitAllocation:
    """The unquantized model."""
    return BitAllocation.uniform(components, UNTOUCHED)


def curves(
    components: Sequence[str], widths: Sequence[int]
) -> Iterator[tuple[str, int, BitAllocation]]:
    """(part, width, allocation): each component alone at each width, then all of them."""
    for name in components:
        for bits in widths:
            alone = {part: bits if part == name else UNTOUCHED for part in components}
            yield name, bits, BitAllocation.of(alone)
    if len(components) > 1:
        for bits in widths:
            yield ALL, bits, BitAllocation.uniform(components, bits)
