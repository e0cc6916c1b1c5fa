"""The search space: a bit width for every component, or for every finer part."""

import itertools
import math
import random
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import Trial

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.allocation.parts import Part, finest, names

MAX_LISTED = 100_000  # allocations; larger spaces are not enumerated


@dataclass(frozen=True, slots=True)
class Space:
    """All allocations of some widths over some components, or over finer parts of them.

    Optuna sees the index of a width, not the width: 8 and 16 are neighbours, as are 2 and 3.
    """

    components: tuple[str, ...]
    bits: tuple[int, ...]  # ascending
    granularity: str = "component"  # or group, type, fine: see mmq.allocation.parts

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, which get one width each."""
        return tuple(names(self.components, self.granularity))

    @property
    def baseline(self) -> BitAllocation:
        """The unquantized model."""
        return BitAllocation.uniform(self.components, UNQUANTIZED)

    @property
    def has_baseline(self) -> bool:
        """Whether the unquantized model is one of the allocations."""
        return UNQUANTIZED in self.bits

    def __len__(self) -> int:
        return math.prod([len(self.bits)] * len(self.parts))

    def _of(self, widths: Iterable[int]) -> BitAllocation:
        pairs = zip(self.parts, widths, strict=True)
        return BitAllocation(tuple(pairs)).over(self.components)

    def suggest(self, trial: Trial) -> BitAllocation:
        """The allocation of a trial's suggested parameters."""
        last = len(self.bits) - 1
        return self._of(self.bits[trial.suggest_int(name, 0, last)] for name in self.parts)

    def params(self, allocation: BitAllocation) -> dict[str, int]:
        """The inverse of `suggest`: Optuna's parameters of an allocation."""
        widths = allocation.widths(self.components)
        return {
            name: self.bits.index(widths[finest(name, self.components)[0]]) for name in self.parts
        }

    def allocation(self, params: Mapping[str, int]) -> BitAllocation:
        """The inverse of `params`."""
        return self._of(self.bits[params[name]] for name in self.parts)

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether these are Optuna's parameters of an allocation in the space."""
        return params.keys() == set(self.parts) and all(
            isinstance(k, int) and 0 <= k < len(self.bits) for k in params.values()
        )

    def part_of(self, part: Part) -> str:
        """Name of the space's part that a finest part belongs to."""
        return next(n for n in self.parts if part in finest(n, self.components))

    def diagonal(self) -> list[BitAllocation]:
        """The uniform allocations, widest first: the unquantized model leads."""
        return [BitAllocation.uniform(self.components, bits) for bits in reversed(self.bits)]

    def __iter__(self) -> Iterator[BitAllocation]:
        for widths in itertools.product(self.bits, repeat=len(self.parts)):
            yield self._of(widths)

    def random_new(
        self,
        excluded: Container[str],
        rng: random.Random,
        allows: Callable[[BitAllocation], bool] = lambda allocation: True,
    ) -> BitAllocation | None:
        """A random allocation that is not excluded; None if none is found."""
        for _ in range(100):
            allocation = self._of(rng.choice(self.bits) for _ in self.parts)
            if str(allocation) not in excluded and allows(allocation):
                return allocation
        if len(self) > MAX_LISTED:
            return None
        rest: Sequence[BitAllocation] = [a for a in self if str(a) not in excluded and allows(a)]
        return rng.choice(rest) if rest else None

    def describe(self) -> str:
        """One line for logs."""
        return f"{len(self)} allocations of {list(self.bits)} bits over {', '.join(self.parts)}"
