"""What a search is told beforehand: exact sizes, a budget, and what each part loses alone."""

import math
import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import Point, SizeAxis
from mmq.artifacts.artifacts import Artifacts
from mmq.contracts.quantizer import Quantizer
from mmq.errors import InputError
from mmq.models.loading import LoadedModel
from mmq.models.size import GIB, part_bits, part_weights
from mmq.models.skeleton import Skeleton
from mmq.prepare import Prepared
from mmq.studies.sensitivity import profile
from mmq_search.front_sampler import FrontSampler
from mmq_search.space import Space

COUNTED = 5000  # allocations: those of larger spaces are not gone through


@dataclass(slots=True)
class SamplerSetup:
    """How the sampler of a study is made.

    weights: how many each of the space's parts has, where sizes are known; parameters: of the
    whole model. stored: bits of each part by width with everything that is stored. axis: the size
    that the study minimizes. weighed: stored bits per weight of allocations whose size turned out
    to be another one than planned. profile: a loss of every part by level.
    """

    space: Space
    budget: Budget = field(default_factory=Budget)
    weights: Sequence[int] | None = None
    parameters: int = 0
    stored: Mapping[tuple[str, int], float] | None = None
    axis: SizeAxis = "stored"
    profile: Mapping[str, Sequence[float]] | None = None
    weighed: dict[str, float] = field(default_factory=dict)
    floor: float | None = None

    @classmethod
    def of(
        cls,
        space: Space,
        seen: Skeleton,
        budget: Budget,
        quantizer: Quantizer,
        bounds: tuple[float, float] | None = None,
        axis: SizeAxis = "stored",
    ) -> "SamplerSetup":
        """Before any weight is loaded; InputError for a budget that nothing can keep to.

        bounds: between which values scores lie, where that is known.
        """
        weights = part_weights(space.parts, seen.components)
        stored = part_bits(space.parts, seen.components, quantizer, space.bits)
        floor = None if bounds is None else bounds[0]
        self = cls(space, budget, weights, seen.parameters, stored, axis, floor=floor)
        self._check_budget()
        if budget.min_score is not None and bounds is not None:
            lie = f"scores lie between {bounds[0]:g} and {bounds[1]:g}"
            if budget.min_score > bounds[1]:
                raise InputError(f"min-score: {budget.min_score:.10g} cannot be reached; {lie}")
            if budget.min_score <= bounds[0]:
                raise InputError(f"min-score: {budget.min_score:.10g} asks for nothing; {lie}")
        return self

    def _check_budget(self) -> None:
        """InputError for a size that is below the smallest there is."""
        least = dict.fromkeys(self.space.parts, 0)
        for name in self.space.parts:
            sizes = [self.size(least | {name: level}) for level in range(len(self.space.bits))]
            least[name] = sizes.index(min(sizes))
        smallest = str(self.space.allocation(least))
        if self.budget.max_bpw is not None and self.budget.max_bpw < (bpw := self.size(least)):
            raise InputError(
                f"max-bpw: {self.budget.max_bpw:g} cannot be reached; the smallest allocation, "
                f"{smallest}, has {_up(bpw)} {self.axis} bits per weight"
            )
        if self.budget.max_gib is not None and self.budget.max_gib < (gib := self.gib(least)):
            raise InputError(
                f"max-size-gib: {self.budget.max_gib:g} cannot be reached; the smallest "
                f"allocation, {smallest}, takes {_up(gib)} GiB"
            )

    def measure(self, model: LoadedModel, prepared: Prepared, artifacts: Artifacts) -> None:
        """See what only a loaded model shows: what each part loses alone."""
        if self.space.grain != "component":
            bits = self.space.bits
            found = profile(model, prepared, artifacts, self.space.parts, bits)
            self.profile = {
                name: [row[b] for b in self._ascending(name)] for name, row in found.items()
            }

    def _ascending(self, part: str) -> list[int]:
        """The widths by the size that they give a part: small groups can outweigh their codes."""
        if self.stored is None or self.axis == "nominal":
            return list(self.space.bits)
        stored = self.stored
        return sorted(self.space.bits, key=lambda bits: stored[part, bits])

    def size(self, params: Mapping[str, Any]) -> float:
        """Bits per weight of Optuna's parameters, on the study's axis."""
        nominal = self.axis == "nominal" or self.stored is None
        return self.bpw(params) if nominal else self.stored_bpw(params)

    def bpw(self, params: Mapping[str, Any]) -> float:
        """Nominal bits per weight."""
        assert self.weights is not None
        parts = zip(self.space.parts, self.weights, strict=True)
        saved = sum(w * (UNQUANTIZED - self.space.bits[params[name]]) for name, w in parts)
        return float(UNQUANTIZED - saved / self.parameters)

    def stored_bpw(self, params: Mapping[str, Any]) -> float:
        """Bits per weight with everything that is stored, as planned."""
        assert self.weights is not None
        assert self.stored is not None
        saved = 0.0
        for name, weights in zip(self.space.parts, self.weights, strict=True):
            saved += UNQUANTIZED * weights - self.stored[name, self.space.bits[params[name]]]
        return float(UNQUANTIZED - saved / self.parameters)

    def gib(self, params: Mapping[str, Any]) -> float:
        """Size in GiB with everything that is stored, as planned."""
        return self.stored_bpw(params) * self.parameters / GIB

    def allows(self, allocation: BitAllocation) -> bool:
        """Whether an allocation is small enough; the unquantized model always is: it is compared
        with.
        """
        if self.weights is None or allocation == self.space.baseline:
            return True
        params = self.space.params(allocation)
        if str(allocation) in self.weighed:
            return self.fits(self.bpw(params), self.weighed[str(allocation)])
        most_bpw, most_gib = self.budget.max_bpw, self.budget.max_gib
        return (most_bpw is None or self.size(params) <= most_bpw) and (
            most_gib is None or self.gib(params) <= most_gib
        )

    def fits(self, bpw: float, stored_bpw: float | None) -> bool:
        """Whether the size of what was really quantized is within the budget."""
        point = Point("", bpw, 0, stored_bpw=stored_bpw, nominal=self.axis == "nominal")
        return self.budget.fits(point, self.parameters)

    def diagonal(self) -> list[BitAllocation]:
        """The same width everywhere, as far as that is allowed."""
        return [a for a in self.space.diagonal() if self.allows(a)]

    def left(self, settled: Container[str]) -> int:
        """How many allocations may still be asked; of a large space, all that there are."""
        if len(self.space) > COUNTED:
            return len(self.space)
        return sum(str(a) not in settled and self.allows(a) for a in self.space)

    def unseen(self, seen: Container[str], rng: random.Random) -> BitAllocation | None:
        """A random allocation that is allowed and was not seen; None where there is none."""
        return self.space.unseen(seen, rng, self.allows)

    def sampler(self, seed: int, points: Sequence[Point]) -> FrontSampler:
        """A sampler that knows all this; points: what was evaluated so far."""
        most = self.budget.max_gib
        limits = [] if self.stored is None or most is None else [(self.gib, most)]
        return FrontSampler(
            seed=seed,
            size=None if self.weights is None else self.size,
            profile=self.profile,
            max_size=self.budget.max_bpw,
            min_score=self.budget.least_score(points),
            limits=limits,
        )


def _up(size: float) -> str:
    """A size rounded up to four digits: as a bound it can be kept to.

    >>> _up(2.85801), _up(0.00012341)
    ('2.859', '0.0001235')
    """
    digits = 3 - math.floor(math.log10(size))
    return f"{math.ceil(size * 10**digits) / 10**digits:.4g}"
