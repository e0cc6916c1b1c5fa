"""Allocations over finer parts in few characters: the widths of each component in one list."""

from collections.abc import Iterable
from dataclasses import dataclass

from mmq.allocation.allocation import BitAllocation
from mmq.allocation.parts import GRANULARITIES, finest, names

LONG = 40  # characters of an allocation that fit in a sentence


@dataclass(frozen=True, slots=True)
class WidthsList:
    """How lines and tables write allocations over parts of this granularity.

    >>> brief = WidthsList("fine")
    >>> brief.text("vit.attn=2 vit.ff=3 llm=4")
    'vit=2/3/2/3/2/3 llm=4'
    >>> brief.order
    'front.attn/front.ff/middle.attn/middle.ff/end.attn/end.ff'
    """

    granularity: str

    @classmethod
    def of(cls, allocations: Iterable[str]) -> "WidthsList":
        """The coarsest granularity that has all parts of these allocations."""
        parts = {
            part.partition("=")[0].partition(".")[2]
            for allocation in allocations
            for part in allocation.split()
        } - {""}
        own = {level: {part.partition(".")[2] for part in names(["x"], level)}
               for level in GRANULARITIES}  # fmt: skip
        return cls(next((level for level in GRANULARITIES if parts <= own[level]), "fine"))

    @property
    def is_needed(self) -> bool:
        """Whether components are divided, so that names of parts would make long lines."""
        return self.granularity != "component"

    @property
    def order(self) -> str:
        """The parts of a component in the order of its list."""
        return "/".join(part.partition(".")[2] for part in names(["x"], self.granularity))

    def text(self, allocation: str) -> str:
        """An allocation with one list per component."""
        if not self.is_needed:
            return allocation
        return " ".join(f"{name}={widths}" for name, widths in self.columns(allocation).items())

    def columns(self, allocation: str) -> dict[str, str]:
        """The list of each component; a single width if all its parts have the same."""
        parsed = BitAllocation.parse(allocation)
        bits, columns = parsed.widths(parsed.components), {}
        for name in parsed.components:
            widths = [str(bits[finest(part, parsed.components)[0]])
                      for part in names([name], self.granularity)]  # fmt: skip
            columns[name] = widths[0] if len(set(widths)) == 1 else "/".join(widths)
        return columns


def brief_text(allocation: str) -> str:
    """An allocation for a sentence: a long one with a list of widths for each component.

    >>> brief_text("vit=4 llm=3")
    'vit=4 llm=3'
    >>> brief_text("vit.attn=4 vit.ff=3 llm.front=4 llm.middle=3 llm.end=4")
    'vit=4/3/4/3/4/3 llm=4/4/3/3/4/4'
    """
    return allocation if len(allocation) <= LONG else WidthsList.of([allocation]).text(allocation)
