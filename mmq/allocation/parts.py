"""Parts of a model that are finer than its components: block groups and layer types.

A part is named after its component, followed by a block group, a layer type, or both: `vit`,
`vit.front`, `vit.attn`, `vit.front.attn`.
"""

from collections.abc import Iterable, Iterator

from mmq.errors import InputError, unknown

GROUPS = ("front", "middle", "end")  # equal contiguous thirds of a component's blocks
TYPES = ("attn", "ff")
GRANULARITIES = ("component", "group", "type", "fine")

OPTIONAL = ("embed", "projector", "head")  # components on request, which are not divided

Part = tuple[str, str, str]  # component, group, layer type: the finest part


def block_group(block: int, blocks: int) -> str:
    """The third of a component that a block is in (paper, section 3.1).

    >>> [block_group(block, 8) for block in range(8)]
    ['front', 'front', 'front', 'middle', 'middle', 'middle', 'end', 'end']
    """
    return GROUPS[3 * block // blocks]


def finest(name: str, components: Iterable[str]) -> list[Part]:
    """The finest parts that a part's name stands for; InputError for an unknown name."""
    component, *qualifiers = name.split(".")
    if component not in (components := list(components)):
        raise unknown("component", component, components)
    groups = [q for q in qualifiers if q in GROUPS]
    types = [q for q in qualifiers if q in TYPES]
    if groups + types != qualifiers or len(groups) > 1 or len(types) > 1:
        raise InputError(
            f"allocation: {name!r} is not a valid part; write {component}, {component}.front (or "
            f"middle, end), {component}.attn (or ff), or {component}.front.attn"
        )
    return [(component, g, t) for g in groups or GROUPS for t in types or TYPES]


def names(components: Iterable[str], granularity: str) -> Iterator[str]:
    """All parts at a granularity: component, group, type, or fine (both).

    Optional components are never divided.

    >>> list(names(["vit"], "group"))
    ['vit.front', 'vit.middle', 'vit.end']
    """
    if granularity not in GRANULARITIES:
        raise unknown("granularity", granularity, GRANULARITIES)
    groups = GROUPS if granularity in ("group", "fine") else ("",)
    types = TYPES if granularity in ("type", "fine") else ("",)
    for component in components:
        if component in OPTIONAL:
            yield component
            continue
        for group in groups:
            for layer_type in types:
                yield ".".join(word for word in (component, group, layer_type) if word)
