"""Rules of thumb: the allocations that people use without a search."""

from collections.abc import Mapping, Sequence

from mmq.allocation.allocation import UNQUANTIZED
from mmq.allocation.parts import OPTIONAL

LANGUAGE = "llm"  # the component that most recipes quantize
LOW, HIGH = 4, 8  # the width that recipes give most weights, and the one of what they protect
ENDS = ("front", "end")  # block groups; the finest that an allocation has
EDGES = ("embed", "head")
FITTED = ", where supported"  # ends the name of a rule that some part could only follow narrower


def rules_of_thumb(
    widths: Mapping[str, Sequence[int]], recipes: Mapping[str, tuple[int, int]]
) -> list[tuple[str, dict[str, int]]]:
    """Name and width by part of each rule that a space can express, the most common first.

    widths: of each part, ascending. A part without a width has the next narrower one. If no part
    has 16 or 8 bits, the rules that protect parts give them the widest width below. recipes: of an
    export target, the widths of the language model and of all else by name.
    Uniform widths come first, widest first; the other rules have the widths up to 4 bits.

    >>> rules_of_thumb({"vit": [4, 16], "llm": [4, 16]}, {})[-1]
    ('vision at 16, language model at 4', {'vit': 16, 'llm': 4})
    """
    every = sorted({bits for own in widths.values() for bits in own}, reverse=True)
    rules = [(f"uniform {bits}", dict.fromkeys(widths, bits)) for bits in every]
    below = [bits for bits in every if bits != UNQUANTIZED]
    low = [bits for bits in below if bits <= LOW] or below[-1:]
    widest, high = every[0], _at_most(every[::-1], HIGH)
    rules += [rule for bits in low for rule in _protecting(list(widths), bits, high, widest)]
    rules += [(name, _split(list(widths), *own)) for name, own in recipes.items()]
    unique: dict[tuple[int, ...], tuple[str, dict[str, int]]] = {}
    exact: set[tuple[int, ...]] = set()
    for name, rule in rules:
        fitted = {part: _at_most(widths[part], bits) for part, bits in rule.items()}
        key = tuple(fitted.values())
        is_exact = fitted == rule
        if key not in unique or (is_exact and key not in exact):
            unique[key] = (name if is_exact else f"{name}{FITTED}", fitted)
        exact |= {key} if is_exact else set()
    return list(unique.values())


def _protecting(
    parts: Sequence[str], bits: int, high: int, widest: int
) -> list[tuple[str, dict[str, int]]]:
    """The rules that give most weights this width, and a high or the widest one to some parts."""
    components = {_component(part) for part in parts}
    rules = []
    if LANGUAGE in components and components - {LANGUAGE, *OPTIONAL}:
        name = f"vision at {widest}, language model at {bits}"
        rules.append((name, _split(parts, bits, widest)))
    if edges := [part for part in parts if part in EDGES]:
        name = f"{' and '.join(edges)} at {high}, the rest at {bits}"
        rules.append((name, _except(parts, edges, bits, high)))
    if ends := [part for part in parts if set(part.split(".")) & set(ENDS)]:
        name = f"first and last third of the blocks at {high}, the rest at {bits}"
        rules.append((name, _except(parts, ends, bits, high)))
    return rules


def _component(part: str) -> str:
    return part.partition(".")[0]


def _split(parts: Sequence[str], language: int, others: int) -> dict[str, int]:
    return {part: language if _component(part) == LANGUAGE else others for part in parts}


def _except(
    parts: Sequence[str], protected: Sequence[str], bits: int, high: int
) -> dict[str, int]:
    return {part: high if part in protected else bits for part in parts}


def _at_most(own: Sequence[int], bits: int) -> int:
    """The widest of a part's widths up to these bits, or else its narrowest."""
    return max((width for width in own if width <= bits), default=own[0])
