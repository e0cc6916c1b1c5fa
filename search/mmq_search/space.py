"""The search space: a bit width for every component, or for every finer part."""

import itertools
import math
import random
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from optuna.trial import Trial

from mmq.allocation.allocation import TABLE_RULE, UNQUANTIZED, BitAllocation, allowed_bits
from mmq.allocation.parts import finest, names
from mmq.allocation.rules import rules_of_thumb
from mmq.errors import InputError
from mmq.system.wording import counted

MAX_LISTED = 100_000  # allocations; larger spaces are not enumerated


@dataclass(frozen=True, slots=True)
class Space:
    """All allocations of some widths over some components, or over finer parts of them.

    Optuna sees the index of a width, not the width: 8 and 16 are neighbours, as are 2 and 3.
    limits: components whose parts have fewer widths: tables, and what an export target lacks.
    """

    components: tuple[str, ...]
    bits: tuple[int, ...]  # ascending
    granularity: str = "component"  # or group, type, fine: see mmq.allocation.parts
    limits: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @classmethod
    def of(
        cls, components: Iterable[str], bits: Sequence[int], granularity: str = "component"
    ) -> "Space":
        """The space of these widths; InputError for a table that can have none of them."""
        components = tuple(components)
        own = {name: allowed_bits(name, bits) for name in components}
        for name, widths in own.items():
            if not widths:
                raise InputError(
                    f"bits: none of {', '.join(map(str, bits))} for {name}: {TABLE_RULE}"
                )
        limits = {name: widths for name, widths in own.items() if widths != tuple(bits)}
        return cls(components, tuple(bits), granularity, tuple(limits.items()))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, which get one width each."""
        return tuple(names(self.components, self.granularity))

    def widths(self, part: str) -> tuple[int, ...]:
        """The widths of a part, ascending."""
        return dict(self.limits).get(part.partition(".")[0], self.bits)

    @property
    def baseline(self) -> BitAllocation:
        """The unquantized model."""
        return BitAllocation.uniform(self.components, UNQUANTIZED)

    @property
    def has_baseline(self) -> bool:
        """Whether the unquantized model is one of the allocations."""
        return all(UNQUANTIZED in self.widths(name) for name in self.components)

    def __len__(self) -> int:
        return math.prod(len(self.widths(name)) for name in self.parts)

    def _of(self, widths: Iterable[int]) -> BitAllocation:
        pairs = zip(self.parts, widths, strict=True)
        return BitAllocation(tuple(pairs)).over(self.components)

    def suggest(self, trial: Trial) -> BitAllocation:
        """The allocation of a trial's suggested parameters."""
        return self._of(
            widths[trial.suggest_int(name, 0, len(widths) - 1)]
            for name, widths in self._by_part().items()
        )

    def _by_part(self) -> dict[str, tuple[int, ...]]:
        return {name: self.widths(name) for name in self.parts}

    def params(self, allocation: BitAllocation) -> dict[str, int]:
        """The inverse of `suggest`: Optuna's parameters of an allocation."""
        widths = allocation.widths(self.components)
        return {
            name: own.index(widths[finest(name, self.components)[0]])
            for name, own in self._by_part().items()
        }

    def allocation(self, params: Mapping[str, int]) -> BitAllocation:
        """The inverse of `params`."""
        return self._of(own[params[name]] for name, own in self._by_part().items())

    def named_widths(self, params: Mapping[str, int]) -> dict[str, int]:
        """The width of each part of the space."""
        return {name: own[params[name]] for name, own in self._by_part().items()}

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether these are Optuna's parameters of an allocation in the space."""
        return params.keys() == set(self.parts) and all(
            isinstance(params[name], int) and 0 <= params[name] < len(own)
            for name, own in self._by_part().items()
        )

    def rules(
        self, recipes: Mapping[str, tuple[int, int]] = MappingProxyType({})
    ) -> list[tuple[str, BitAllocation]]:
        """The rules of thumb with their names; the uniform allocations lead, widest first.

        recipes: of the export target, see `Target`.
        """
        rules = rules_of_thumb(self._by_part(), recipes)
        return [(name, self._of(widths.values())) for name, widths in rules]

    def __iter__(self) -> Iterator[BitAllocation]:
        for widths in itertools.product(*self._by_part().values()):
            yield self._of(widths)

    def random_new(
        self,
        excluded: Container[str],
        rng: random.Random,
        allows: Callable[[BitAllocation], bool] = lambda allocation: True,
    ) -> BitAllocation | None:
        """A random allocation that is not excluded; None if none is found."""
        for _ in range(100):
            allocation = self._of(rng.choice(own) for own in self._by_part().values())
            if str(allocation) not in excluded and allows(allocation):
                return allocation
        if len(self) > MAX_LISTED:
            return None
        rest: Sequence[BitAllocation] = [a for a in self if str(a) not in excluded and allows(a)]
        return rng.choice(rest) if rest else None

    def describe(self) -> str:
        """One line for logs."""
        own = {part: ", ".join(map(str, widths)) for part, widths in self._by_part().items()}
        divided = "" if self.granularity == "component" else f"{len(own)} parts of "
        names = divided + ", ".join(self.components if divided else own)
        if len(set(own.values())) == 1:
            return f"{counted(len(self), 'allocation')} of {own.popitem()[1]} bits over {names}"
        limited = dict(self.limits)
        texts = [
            f"{name} ({', '.join(map(str, limited.get(name, self.bits)))})"
            for name in self.components
        ]
        return f"{counted(len(self), 'allocation')} of the bits of {divided}{', '.join(texts)}"
