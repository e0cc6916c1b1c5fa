"""What the sampler knows beforehand: exact sizes, a budget, and the loss of each part alone."""

import math
import random
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.analysis.budgets import Budget, stored_gib
from mmq.analysis.fronts import AGREEMENT, Cost, Point, SizeAxis
from mmq.artifacts.artifacts import Artifacts
from mmq.contracts.quantizer import Quantizer
from mmq.errors import InputError
from mmq.models.loading import LoadedModel
from mmq.models.size import part_bits, part_weights
from mmq.models.skeleton import Skeleton
from mmq.prepare import Prepared
from mmq.record import TrialRecord
from mmq.studies.objectives import Objective
from mmq.studies.sensitivity import profile
from mmq_search.front_sampler import FrontSampler
from mmq_search.record_facts import SIZE_NAMES
from mmq_search.rules_above import rules_above
from mmq_search.space import Space
from mmq_search.target_search import TargetCosts

MAX_COUNTED = 5000  # allocations; larger spaces are not enumerated


@dataclass(slots=True)
class SamplerSetup:
    """What a study's sampler is made from.

    weights: how many each part has, if sizes are known. parameters: of the whole model. stored:
    the stored bits of each part by width, scales and zero points included. axis: the size that the
    study minimizes. costs: what it minimizes instead, in a search for a target. measured_sizes: of
    allocations that turned out larger than planned, in stored bits per weight, or in GiB of the
    target's files. profile: the loss of every part by level. floor: the lowest possible score.
    objective: what the study maximizes.
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
    costs: TargetCosts | None = None
    objective: Objective = "score"
    _above: frozenset[str] | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(
        cls,
        space: Space,
        skeleton: Skeleton,
        budget: Budget,
        quantizer: Quantizer,
        bounds: tuple[float, float] | None = None,
        axis: SizeAxis = "stored",
        costs: TargetCosts | None = None,
        objective: Objective = "score",
    ) -> "SamplerSetup":
        """From the model's skeleton, before weights are loaded.

        bounds: the lowest and the highest possible score, if known. InputError for a budget that
        no allocation meets.
        """
        weights = part_weights(space.parts, skeleton.components)
        stored: dict[tuple[str, int], int] = {}
        for name, component in skeleton.components.items():
            parts = [part for part in space.parts if part.partition(".")[0] == name]
            stored |= part_bits(parts, {name: component}, quantizer, space.widths(name))
        floor = None if bounds is None else bounds[0]
        self = cls(
            space, budget, weights, skeleton.parameters, stored, axis,
            floor=floor, costs=costs, objective=objective,
        )  # fmt: skip
        self.check_budget()
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

    @property
    def metric_names(self) -> list[str]:
        """Names of what is minimized and of what is maximized, for Optuna's dashboard."""
        size = SIZE_NAMES[self.axis] if self.costs is None else self.costs.objective
        return [size, "score" if self.objective == "score" else AGREEMENT]

    def check_budget(self) -> None:
        """InputError if the smallest allocation exceeds the budget."""
        least = self._extreme(self.size)
        smallest = str(self.space.allocation(least))
        if self.costs is not None:
            self._check_target_budget(self.costs)
        bpw = self._point(least).bits_per_weight
        if self.budget.max_bpw is not None and self.budget.max_bpw < bpw:
            raise InputError(
                f"max-bpw: {self.budget.max_bpw:g} cannot be reached; the smallest allocation, "
                f"{smallest}, has {_up(bpw)} {self.axis} bits per weight"
            )
        if (
            self.costs is None
            and self.budget.max_gib is not None
            and self.budget.max_gib < (gib := self.gib(least))
        ):
            raise InputError(
                f"max-size-gib: {self.budget.max_gib:g} cannot be reached; the smallest "
                f"allocation, {smallest}, takes {_up(gib)} GiB"
            )

    def _extreme(
        self, size: Callable[[Mapping[str, int]], float], largest: bool = False
    ) -> dict[str, int]:
        """Optuna's parameters of the smallest or largest allocation; sizes are sums over parts."""
        params = dict.fromkeys(self.space.parts, 0)
        for name in self.space.parts:
            levels = range(len(self.space.widths(name)))
            sizes = [size(params | {name: level}) for level in levels]
            params[name] = sizes.index(max(sizes) if largest else min(sizes))
        return params

    def _check_target_budget(self, costs: TargetCosts) -> None:
        """InputError for a bound that no allocation meets, and for one that excludes none."""
        bounds = [("max-size-gib", self.budget.max_gib, self.gib, f"GiB as {costs.name}")]
        if costs.times is not None:
            bounds.append(("max-latency-ms", self.budget.max_ms, self.ms, "ms per answer"))
        for name, most, size, unit in bounds:
            if most is None:
                continue
            least, greatest = self._extreme(size), self._extreme(size, largest=True)
            if most < size(least):
                raise InputError(
                    f"{name}: {most:g} cannot be reached; the allocation with the least, "
                    f"{self.space.allocation(least)}, takes {_up(size(least))} {unit}"
                )
            if most >= size(greatest):
                raise InputError(
                    f"{name}: {most:g} excludes nothing; the allocation with the most, "
                    f"{self.space.allocation(greatest)}, takes {size(greatest):.4g} {unit}. Give "
                    f"less, or leave the bound out"
                )

    def measure(self, model: LoadedModel, prepared: Prepared, artifacts: Artifacts) -> None:
        """Measure the loss of each part alone, which needs the loaded model."""
        if self.space.granularity != "component":
            widths = {name: self.space.widths(name) for name in self.space.parts}
            losses = profile(model, prepared, artifacts, widths)
            self.profile = {
                name: [row[b] for b in self._ascending(name)] for name, row in losses.items()
            }

    def _ascending(self, part: str) -> list[int]:
        """The widths by a part's share of what is minimized: scales can outweigh codes."""
        widths = self.space.widths(part)
        if self.costs is not None:
            sums = self.costs.sizes.sums if self.costs.times is None else self.costs.times
            return sorted(widths, key=lambda bits: sums.changes[part, bits])
        if self.stored is None or self.axis == "nominal":
            return list(widths)
        stored = self.stored
        return sorted(widths, key=lambda bits: stored[part, bits])

    def size(self, params: Mapping[str, Any]) -> float:
        """What the study minimizes, from Optuna's parameters: bits per weight, or a target's cost.

        It is a sum over the parts.
        """
        if self.costs is not None:
            return self.costs.planned(self.space.named_widths(params)).value
        nominal = self.axis == "nominal" or self.stored is None
        return self.bpw(params) if nominal else self.stored_bpw(params)

    def bpw(self, params: Mapping[str, Any]) -> float:
        """Nominal bits per weight."""
        assert self.weights is not None
        parts = zip(self.space.parts, self.weights, strict=True)
        widths = self.space.named_widths(params)
        saved = sum(w * (UNQUANTIZED - widths[name]) for name, w in parts)
        return float(UNQUANTIZED - saved / self.parameters)

    def stored_bpw(self, params: Mapping[str, Any]) -> float:
        """Planned bits per weight, scales and zero points included."""
        assert self.weights is not None
        assert self.stored is not None
        saved, widths = 0.0, self.space.named_widths(params)
        for name, weights in zip(self.space.parts, self.weights, strict=True):
            saved += UNQUANTIZED * weights - self.stored[name, widths[name]]
        return float(UNQUANTIZED - saved / self.parameters)

    def gib(self, params: Mapping[str, Any]) -> float:
        """Planned size in GiB, scales and zero points included; of a target, all its files."""
        size = stored_gib(self._point(params), self.parameters)
        assert size is not None
        return size

    def ms(self, params: Mapping[str, Any]) -> float:
        """Planned time per answer in the target's engine."""
        assert self.costs is not None
        ms = self.costs.planned(self.space.named_widths(params)).ms
        assert ms is not None
        return ms

    def cost(self, allocation: BitAllocation, gib: float | None = None) -> Cost | None:
        """The cost of an allocation on the target; None in a search without one.

        gib: of its files, if known.
        """
        if self.costs is None:
            return None
        if allocation == self.space.baseline:  # which need not be in the space
            widths = dict.fromkeys(self.space.parts, UNQUANTIZED)
        else:
            widths = self.space.named_widths(self.space.params(allocation))
        return self.costs.exact(allocation, widths, gib)

    def is_as_planned(self, record: TrialRecord) -> bool:
        """Whether the layers of a trial take what was planned, so that its target bytes are known.

        True in a search without a target. Scales outside of float16's range take more.
        """
        if self.costs is None or record.size.stored_bpw is None:
            return True
        planned = self.stored_bpw(self.space.params(record.allocation))
        return math.isclose(record.size.stored_bpw, planned, rel_tol=1e-12)

    def _point(self, params: Mapping[str, Any], measured: float | None = None) -> Point:
        """A planned allocation as a point without a score. measured: see `measured_sizes`."""
        cost = None
        stored = None if self.stored is None else self.stored_bpw(params)
        if self.costs is not None:
            cost = self.costs.planned(self.space.named_widths(params))
            cost = cost if measured is None else replace(cost, gib=measured)
        elif measured is not None:
            stored = measured
        nominal = self.axis == "nominal"
        bpw = self.bpw(params)
        return Point("", bpw, 0, stored_bpw=stored, nominal=nominal, cost=cost)

    def allows(self, allocation: BitAllocation) -> bool:
        """Whether an allocation is evaluated: within the budget, or for comparison with it."""
        if self.weights is None:
            return True
        measured = self.measured_sizes.get(str(allocation))
        if self.is_reference(allocation):
            return measured != math.inf
        return (measured is None and not self.budget.sized) or self.fits(allocation, measured)

    def is_reference(self, allocation: BitAllocation) -> bool:
        """Whether others are compared with an allocation, so that its size is not bounded."""
        if self._above is None:
            self._above = rules_above(self._rules(), self.budget, self._within)
        return allocation == self.space.baseline or str(allocation) in self._above

    def fits(self, allocation: BitAllocation, measured: float | None = None) -> bool:
        """Whether the size of an allocation is within the budget. measured: if it is known."""
        return self._within(allocation, self.budget, measured)

    def _within(
        self, allocation: BitAllocation, budget: Budget, measured: float | None = None
    ) -> bool:
        if measured == math.inf:  # the target cannot store it
            return False
        point = self._point(self.space.params(allocation), measured)
        return budget.fits(point, self.parameters)

    def _bits_per_weight(self, params: Mapping[str, Any]) -> float:
        return self._point(params).bits_per_weight

    def _rules(self) -> list[tuple[str, BitAllocation]]:
        return self.space.rules({} if self.costs is None else self.costs.recipes)

    def rules(self) -> dict[str, str]:
        """The rules of thumb: their names by allocation, the uniform ones first."""
        return {str(allocation): name for name, allocation in self._rules()}

    def first(self) -> list[BitAllocation]:
        """The rules of thumb that are evaluated first, the widest leading; see `allows`."""
        return [a for _, a in self._rules() if self.allows(a)]

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
        bounds = [(self.gib, self.budget.max_gib)] if self.stored is not None else []
        if self.costs is not None:
            bounds += [(self._bits_per_weight, self.budget.max_bpw), (self.ms, self.budget.max_ms)]
        limits = [(size, most) for size, most in bounds if most is not None]
        return FrontSampler(
            seed=seed,
            size=None if self.weights is None else self.size,
            profile=self.profile,
            max_size=self.budget.max_bpw if self.costs is None else None,
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
