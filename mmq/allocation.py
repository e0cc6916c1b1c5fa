"""Bit allocations: how many bits each component's weights get."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mmq.errors import InputError, unknown

UNTOUCHED = 16
ALLOWED_BITS = (2, 3, 4, 5, 6, 7, 8, UNTOUCHED)


def check_bits(bits: int) -> int:
    """The same number if it is an allowed width; InputError if not."""
    if bits not in ALLOWED_BITS:
        raise InputError(f"bits: {bits} is not one of {list(ALLOWED_BITS)}")
    return bits


def parse_bits(text: str) -> tuple[int, ...]:
    """Widths from "2,3,4", ascending and without doubles."""
    try:
        widths = {int(part) for part in text.split(",")}
    except ValueError as error:
        raise InputError(
            f"bits: {text!r} is not a list of widths; write them like 2,3,4,8"
        ) from error
    return tuple(sorted(check_bits(bits) for bits in widths))


def parse_widths(text: str) -> tuple[int, ...]:
    """Widths below 16, ascending; InputError where there are none."""
    widths = tuple(bits for bits in parse_bits(text) if bits != UNTOUCHED)
    if not widths:
        raise InputError("bits: 16 is untouched, there is nothing to quantize")
    return widths


@dataclass(frozen=True, slots=True)
class BitAllocation:
    """Bits for every component, in the model's order; 16 means untouched.

    >>> str(BitAllocation.parse("vit=4,llm=3"))
    'vit=4 llm=3'
    """

    bits: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        if not self.bits:
            raise InputError("allocation: no component given; write it like vit=4,llm=3")
        names = [name for name, _ in self.bits]
        if len(set(names)) != len(names):
            raise InputError(f"allocation: a component is given twice in {self}")
        for _, bits in self.bits:
            check_bits(bits)

    @classmethod
    def of(cls, bits: Mapping[str, int]) -> "BitAllocation":
        """An allocation from a mapping of component to bits."""
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
        """The same allocation in a model's order of components; unnamed ones stay untouched."""
        given, components = dict(self.bits), tuple(components)
        for name in given:
            if name not in components:
                raise unknown("component", name, components)
        return BitAllocation(tuple((name, given.get(name, UNTOUCHED)) for name in components))

    def as_dict(self) -> dict[str, int]:
        """Bits by component."""
        return dict(self.bits)

    def __getitem__(self, component: str) -> int:
        return dict(self.bits)[component]

    def __str__(self) -> str:
        return " ".join(f"{name}={bits}" for name, bits in self.bits)
