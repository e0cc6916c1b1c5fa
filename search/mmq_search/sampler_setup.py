"""What the sampler knows beforehand: exact sizes, a budget, and the loss of each part alone."""

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

MAX_COUNTED = 5000  # allocations; larger spaces are not enumerated


@dataclass(slots=True)
class SamplerSetup:
    """What a study's sampler is made from.

    weights: how many each part has, if sizes are known. parameters: of the whole model. stored:
    the stored bits of each part by width, scales and zero points included. axis: the size that the
    study minimizes. measured_sizes: stored bits per weight of allocations that turned out larger
    than planned. profile: the loss of every part by level. floor: the lowest possible score.
    """

    space: Space
    budget: Budget = field(default_factory=Budget)
    weights: Sequence[int] | None = None
    parameters: int = 0
    stored: Mapping[tuple[str, int], float] | None = None
    axis: SizeAxis = "stored"
    profile: Mapping[str, Sequence[float]] | None = None
    measured_sizes: dict[str, float] = field(default_factory=dict)
    floor: float | None = None

    @classmethod
    def of(
        cls,
        space: Space,
        skeleton: Skeleton,
        budget: Budget,
        quantizer: Quantizer,
        bounds: tuple[float, float] | None = None,
        axis: SizeAxis = "stored",
    ) -> "SamplerSetup":
        """From the model's skeleton, before weights are loaded.

        bounds: the lowest and the highest possible score, if known. InputError for a budget that
        no allocation meets.
        """
        weights = part_weights(space.parts, skeleton.components)
        stored = part_bits(space.parts, skeleton.components, quantizer, space.bits)
        floor = None if bounds is None else bounds[0]
        self = cls(space, budget, weights, skeleton.parameters, stored, axis, floor=floor)
        self._check_budget()
        if budget.min_score is not None and bounds is not None:
            interval = f"scores lie between {bounds[0]:g} and {bounds[1]:g}"
            if budget.min_score > bounds[1]:
                raise InputError(
                    f"min-score: {budget.min_score:.10g} cannot be reached; {interval}"
                )
            if budget.min_score <= bounds[0]:
                raise InputError(
                    f"min-score: {budget.min_score:.10g} is met by every model; {interval}"
                )
        return self

    def _check_budget(self) -> None:
        """InputError if the smallest allocation exceeds the budget."""
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
        """Measure the loss of each part alone, which needs the loaded model."""
        if self.space.granularity != "component":
            bits = self.space.bits
            losses = profile(model, prepared, artifacts, self.space.parts, bits)
            self.profile = {
                name: [row[b] for b in self._ascending(name)] for name, row in losses.items()
            }

    def _ascending(self, part: str) -> list[int]:
        """The widths by the stored size of a part: scales of small groups can outweigh codes."""
        if self.stored is None or self.axis == "nominal":
            return list(self.space.bits)
        stored = self.stored
        return sorted(self.space.bits, key=lambda bits: stored[part, bits])

    def size(self, params: Mapping[str, Any]) -> float:
        """Bits per weight of Optuna's parameters, on the study's size axis."""
        nominal = self.axis == "nominal" or self.stored is None
        return self.bpw(params) if nominal else self.stored_bpw(params)

    def bpw(self, params: Mapping[str, Any]) -> float:
        """Nominal bits per weight."""
        assert self.weights is not None
        parts = zip(self.space.parts, self.weights, strict=True)
        saved = sum(w * (UNQUANTIZED - self.space.bits[params[name]]) for name, w in parts)
        return float(UNQUANTIZED - saved / self.parameters)

    def stored_bpw(self, params: Mapping[str, Any]) -> float:
        """Planned bits per weight, scales and zero points included."""
        assert self.weights is not None
        assert self.stored is not None
        saved = 0.0
        for name, weights in zip(self.space.parts, self.weights, strict=True):
            saved += UNQUANTIZED * weights - self.stored[name, self.space.bits[params[name]]]
        return float(UNQUANTIZED - saved / self.parameters)

    def gib(self, params: Mapping[str, Any]) -> float:
        """Planned size in GiB, scales and zero points included."""
        return self.stored_bpw(params) * self.parameters / GIB

    def allows(self, allocation: BitAllocation) -> bool:
        """Whether an allocation is within the budget; the unquantized model, which all others are
        compared with, always is.
        """
        if self.weights is None or allocation == self.space.baseline:
            return True
        params = self.space.params(allocation)
        if str(allocation) in self.measured_sizes:
            return self.fits(self.bpw(params), self.measured_sizes[str(allocation)])
        most_bpw, most_gib = self.budget.max_bpw, self.budget.max_gib
        return (most_bpw is None or self.size(params) <= most_bpw) and (
            most_gib is None or self.gib(params) <= most_gib
        )

    def fits(self, bpw: float, stored_bpw: float | None) -> bool:
        """Whether the size of a quantized model is within the budget."""
        point = Point("", bpw, 0, stored_bpw=stored_bpw, nominal=self.axis == "nominal")
        return self.budget.fits(point, self.parameters)

    def diagonal(self) -> list[BitAllocation]:
        """The uniform allocations within the budget, widest first."""
        return [a for a in self.space.diagonal() if self.allows(a)]

    def count_new(self, finished: Container[str]) -> int:
        """How many allocations within the budget are not finished; of a large space, its size."""
        if len(self.space) > MAX_COUNTED:
            return len(self.space)
        return sum(str(a) not in finished and self.allows(a) for a in self.space)

    def random_new(self, excluded: Container[str], rng: random.Random) -> BitAllocation | None:
        """A random allocation within the budget that is not excluded; None if there is none."""
        return self.space.random_new(excluded, rng, self.allows)

    def sampler(self, seed: int, points: Sequence[Point]) -> FrontSampler:
        """The sampler. points: the evaluated trials."""
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
    """A size rounded up to four digits, so that it can be given as a bound.

    >>> _up(2.85801), _up(0.00012341)
    ('2.859', '0.0001235')
    """
    digits = 3 - math.floor(math.log10(size))
    return f"{math.ceil(size * 10**digits) / 10**digits:.4g}"
