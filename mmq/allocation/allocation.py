"""Bit allocations: the bit width of each component's weights, or of finer parts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmq.allocation.parts import GROUPS, TYPES, Part, finest
from mmq.errors import InputError

UNQUANTIZED = 16
ALLOWED_BITS = (2, 3, 4, 5, 6, 7, 8, UNQUANTIZED)
TABLES = ("embed", "head")  # components with one range per row, which few bits would not fill
TABLE_BITS = (4, 6, 8, UNQUANTIZED)
TABLE_RULE = "embed and head have 4, 6, 8 or 16 bits"


def check_bits(bits: int) -> int:
    """The same width if it is allowed; InputError otherwise."""
    if bits not in ALLOWED_BITS:
        raise InputError(f"bits: {bits} is not one of {list(ALLOWED_BITS)}")
    return bits


def allowed_bits(component: str, among: Iterable[int] = ALLOWED_BITS) -> tuple[int, ...]:
    """The widths, among these, that a component can have.

    >>> allowed_bits("embed", (3, 4, 8))
    (4, 8)
    """
    return tuple(b for b in among if component not in TABLES or b in TABLE_BITS)


def parse_bits(text: str) -> tuple[int, ...]:
    """Widths from "2,3,4", ascending and without duplicates."""
    try:
        widths = {int(part) for part in text.split(",")}
    except ValueError as error:
        raise InputError(
            f"bits: {text!r} is not a list of widths; write them like 2,3,4,8"
        ) from error
    return tuple(sorted(check_bits(bits) for bits in widths))


def parse_widths(text: str) -> tuple[int, ...]:
    """Widths below 16, ascending; InputError if there are none."""
    widths = tuple(bits for bits in parse_bits(text) if bits != UNQUANTIZED)
    if not widths:
        raise InputError(
            "bits: 16 is unquantized: there is nothing to quantize; give a smaller width, e.g. 4"
        )
    return widths


@dataclass(frozen=True, slots=True)
class BitAllocation:
    """Bits per component, or per finer part, in the model's order; 16 means unquantized.

    Within a component, the most specific name counts; parts that are not named are unquantized.

    >>> str(BitAllocation.parse("vit=4,llm=3"))
    'vit=4 llm=3'
    >>> str(BitAllocation.parse("vit=8,vit.front=4").over(["vit"]))
    'vit.front=4 vit.middle=8 vit.end=8'
    """

    bits: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        if not self.bits:
            raise InputError("allocation: no component given; write it like vit=4,llm=3")
        names = [name for name, _ in self.bits]
        if len(set(names)) != len(names):
            raise InputError(f"allocation: a component is given twice in {self}")
        for name, bits in self.bits:
            if check_bits(bits) not in allowed_bits(name.partition(".")[0]):
                raise InputError(f"allocation: {name}={bits} is not possible: {TABLE_RULE}")

    @classmethod
    def of(cls, bits: Mapping[str, int]) -> "BitAllocation":
        """An allocation from a mapping of component, or part, to bits."""
        return cls(tuple(bits.items()))

    @classmethod
    def uniform(cls, components: Iterable[str], bits: int) -> "BitAllocation":
        """The same bits everywhere."""
        return cls(tuple((name, bits) for name in components))

    @classmethod
    def parse(cls, text: str) -> "BitAllocation":
        """From "vit=4,qformer=8,llm=3" (commas or spaces)."""
        pairs = []
        for part in text.replace(",", " ").split():
            name, _, bits = part.partition("=")
            if not name or not bits.isdecimal():
                raise InputError(
                    f"allocation: {part!r} is not component=bits; write it like vit=4,llm=3"
                )
            pairs.append((name, int(bits)))
        return cls(tuple(pairs))

    def over(self, components: Iterable[str]) -> "BitAllocation":
        """The same allocation in a model's order of components, in its shortest form.

        InputError for an unknown part, or if two equally specific names differ.
        """
        components = tuple(components)
        widths = self.widths(components)
        bits: list[tuple[str, int]] = []
        for component in components:
            bits += _shortest(component, {part[1:]: widths[part] for part in widths
                                           if part[0] == component})  # fmt: skip
        return BitAllocation(tuple(bits))

    def widths(self, components: Iterable[str]) -> dict[Part, int]:
        """Bits of all finest parts: (component, block group, layer type)."""
        components = tuple(components)
        widths = {part: UNQUANTIZED for name in components for part in finest(name, components)}
        sources: dict[Part, str] = {}  # the name that set a part's width
        unclear: dict[Part, tuple[str, str]] = {}  # two equally specific names
        for name, bits in sorted(self.bits, key=lambda pair: pair[0].count(".")):
            for part in finest(name, components):
                other = sources.get(part, "")
                if other.count(".") < name.count("."):
                    unclear.pop(part, None)
                elif other and widths[part] != bits:
                    unclear[part] = other, name
                sources[part], widths[part] = name, bits
        for part, (one, other) in unclear.items():
            exact = ".".join(part)
            raise InputError(
                f"allocation: {one} and {other} differ on {exact}; give {exact} as well"
            )
        return widths

    def as_dict(self) -> dict[str, int]:
        """Bits by component, or by part."""
        return dict(self.bits)

    @property
    def components(self) -> list[str]:
        """The components that are named, also those of which only parts are."""
        return list(dict.fromkeys(name.split(".")[0] for name, _ in self.bits))

    def within(self, part: str) -> int | str:
        """A part's width, or "mixed" if it has several."""
        widths = self.widths(self.components)
        distinct = {widths[piece] for piece in finest(part, self.components)}
        return distinct.pop() if len(distinct) == 1 else "mixed"

    def __getitem__(self, component: str) -> int:
        return dict(self.bits)[component]

    def __str__(self) -> str:
        return " ".join(f"{name}={bits}" for name, bits in self.bits)


def allocator(text: str) -> Callable[[Sequence[str]], BitAllocation]:
    """A function from a model's components to their allocation; InputError for invalid text.

    text: "4" for every component, or an allocation.

    >>> str(allocator("4")(["vit", "llm"])), str(allocator("llm=3")(["vit", "llm"]))
    ('vit=4 llm=4', 'vit=16 llm=3')
    """
    if not text.strip().isdecimal():
        return BitAllocation.parse(text).over
    bits = check_bits(int(text))
    return lambda components: BitAllocation.uniform(components, bits)


def _shortest(component: str, widths: Mapping[tuple[str, str], int]) -> list[tuple[str, int]]:
    """A component's widths by (group, type) with as few names as they allow."""
    if len(set(widths.values())) == 1:
        return [(component, widths[GROUPS[0], TYPES[0]])]
    by_type = {t: {widths[g, t] for g in GROUPS} for t in TYPES}
    if all(len(distinct) == 1 for distinct in by_type.values()):
        return [(f"{component}.{t}", distinct.pop()) for t, distinct in by_type.items()]
    pairs: list[tuple[str, int]] = []
    for group in GROUPS:
        attn, ff = (widths[group, t] for t in TYPES)
        if attn == ff:
            pairs.append((f"{component}.{group}", attn))
        else:
            pairs += [(f"{component}.{group}.{t}", widths[group, t]) for t in TYPES]
    return pairs


def is_unquantized(allocation: BitAllocation) -> bool:
    """Whether every part has 16 bits."""
    return all(bits == UNQUANTIZED for _, bits in allocation.bits)
