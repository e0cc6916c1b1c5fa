"""The allocations of planned studies."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain, combinations, product

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.allocation.parts import GROUPS, TYPES, Part

ALL = "all"  # every component at one width


def curves(
    components: Sequence[str], widths: Sequence[int]
) -> Iterator[tuple[str, int, BitAllocation]]:
    """(part, width, allocation): each component alone at each width, then all of them."""
    for name in components:
        for bits in widths:
            alone = {part: bits if part == name else UNQUANTIZED for part in components}
            yield name, bits, BitAllocation.of(alone)
    if len(components) > 1:
        for bits in widths:
            yield ALL, bits, BitAllocation.uniform(components, bits)


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """All subsets that are not empty, small ones first."""
    sizes = range(1, len(names) + 1)
    return chain.from_iterable(combinations(names, size) for size in sizes)


def _below_16(widths: Sequence[int]) -> list[int]:
    """Widths that quantize, wide ones first."""
    return sorted(set(widths) - {UNQUANTIZED}, reverse=True)


def sweep(components: Sequence[str], widths: Sequence[int]) -> Iterator[BitAllocation]:
    """The paper's algorithm 1: each width on all subsets of components, of block groups (thirds)
    and of layer types; everything else unquantized. Empty subsets are the unquantized model.
    """
    for bits in _below_16(widths):
        for subsets in product(_subsets(components), _subsets(GROUPS), _subsets(TYPES)):
            parts: list[Part] = list(product(*subsets))
            bits_of = {".".join(part): bits for part in parts}
            yield BitAllocation.of(bits_of).over(components)


def ablation(components: Sequence[str], widths: Sequence[int]) -> Iterator[BitAllocation]:
    """Each component alone at each width, then each pair at all pairs of widths."""
    quantizing = _below_16(widths)
    for size in (1, 2):
        for names in combinations(components, size):
            for bits in product(quantizing, repeat=size):
                widths_of = dict(zip(names, bits, strict=True))
                yield BitAllocation.of({c: widths_of.get(c, UNQUANTIZED) for c in components})


def grid(components: Sequence[str], widths: Sequence[int]) -> Iterator[BitAllocation]:
    """Every component at every width, large models first; 16 is a width like any other."""
    descending = sorted(widths, reverse=True)
    for bits in sorted(product(descending, repeat=len(components)), key=math.prod, reverse=True):
        yield BitAllocation(tuple(zip(components, bits, strict=True)))
