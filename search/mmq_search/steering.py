"""What a search is told beforehand: exact sizes, a budget, and what each part loses alone."""

import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmq.allocation import UNTOUCHED, BitAllocation
from mmq.analysis.answers import Budget
from mmq.analysis.fronts import Point
from mmq.artifacts import Artifacts
from mmq.errors import InputError
from mmq.model import LoadedModel, Skeleton
from mmq.prepare import Prepared
from mmq.sensitivity import profile
from mmq.sizes import GIB, part_weights
from mmq_search.front_sampler import FrontSampler
from mmq_search.space import Space

COUNTED = 5000  # allocations: those of larger spaces are not gone through


@dataclass(slots=True)
class Steering:
    """How the sampler of a study is made.

    weights: how many each of the space's parts has, where sizes are known; parameters: of the
    whole model. stored: bits of each part by width with everything that is stored, where GiB are
    bounded. profile: a loss of every part by level.
    """

    space: Space
    budget: Budget = field(default_factory=Budget)
    weights: Sequence[int] | None = None
    parameters: int = 0
    stored: Mapping[tuple[str, int], float] | None = None
    profile: Mapping[str, Sequence[float]] | None = None

    @classmethod
    def of(
        cls,
        space: Space,
        seen: Skeleton,
        budget: Budget,
        bounds: tuple[float, float] | None = None,
    ) -> "Steering":
        """Before any weight is loaded; InputError for a budget that nothing can keep to.

        bounds: between which values scores lie, where that is known.
        """
        weights = part_weights(space.parts, seen.components)
        self = cls(space, budget, weights, seen.parameters)
        least = self.bpw(dict.fromkeys(space.parts, 0))
        smallest = f"everything at {space.bits[0]} bits has"
        if budget.max_bpw is not None and budget.max_bpw < least:
            raise InputError(
                f"max-bpw: {budget.max_bpw:g} cannot be reached; {smallest} {least:.3f}"
            )
        gib = least * seen.parameters / GIB
        if budget.max_gib is not None and budget.max_gib < gib:
            raise InputError(
                f"max-size-gib: {budget.max_gib:g} cannot be reached; {smallest} {gib:.3g} GiB, "
                f"scales and zero points not counted"
            )
        if budget.min_score is not None and bounds is not None and budget.min_score > bounds[1]:
            raise InputError(
                f"min-score: {budget.min_score:.10g} cannot be reached; scores lie between "
                f"{bounds[0]:g} and {bounds[1]:g}"
            )
        if budget.max_drop is not None and UNTOUCHED not in space.bits:
            raise InputError("max-drop: add 16 to --bits, so that there is a score to drop from")
        return self

    def measure(self, model: LoadedModel, prepared: Prepared, artifacts: Artifacts) -> None:
        """See what only a loaded model tells: what is stored, what each part loses alone."""
        if self.budget.max_gib is not None:
            self._weigh(model, artifacts)
        if self.space.grain != "component":
            bits = self.space.bits
            found = profile(model, prepared, artifacts, self.space.parts, bits)
            self.profile = {name: [row[b] for b in bits] for name, row in found.items()}

    def _weigh(self, model: LoadedModel, artifacts: Artifacts) -> None:
        """Quantize at all widths now, and see what that stores."""
        stored: dict[tuple[str, int], float] = {}
        widths = [bits for bits in self.space.bits if bits != UNTOUCHED]
        for name in model.components:
            artifacts.fill(model, name, widths)
            for bits in widths:
                for layer, quantized in artifacts.layers(model, name, bits):
                    part = self.space.part_of(model.components[name].part(layer))
                    stored[part, bits] = (
                        stored.get((part, bits), 0.0) + quantized.weight.stored_bits
                    )
        self.stored = stored

    def bpw(self, params: Mapping[str, Any]) -> float:
        """Exact size of Optuna's parameters."""
        assert self.weights is not None
        parts = zip(self.space.parts, self.weights, strict=True)
        saved = sum(w * (UNTOUCHED - self.space.bits[params[name]]) for name, w in parts)
        return float(UNTOUCHED - saved / self.parameters)

    def gib(self, params: Mapping[str, Any]) -> float:
        """Exact size in GiB with everything that is stored."""
        assert self.weights is not None
        assert self.stored is not None
        bits = float(UNTOUCHED * self.parameters)
        for name, weights in zip(self.space.parts, self.weights, strict=True):
            width = self.space.bits[params[name]]
            if width != UNTOUCHED:
                bits += self.stored.get((name, width), 0) - UNTOUCHED * weights
        return bits / GIB

    def allows(self, allocation: BitAllocation) -> bool:
        """Whether an allocation is small enough; the unquantized model always is: it is compared
        with.
        """
        if self.weights is None or allocation == self.space.diagonal()[0]:
            return True
        params = self.space.params(allocation)
        most_bpw, most_gib = self.budget.max_bpw, self.budget.max_gib
        return (most_bpw is None or self.bpw(params) <= most_bpw) and (
            most_gib is None or self.stored is None or self.gib(params) <= most_gib
        )

    def diagonal(self) -> list[BitAllocation]:
        """The same width everywhere, as far as that is allowed, and known to be."""
        every = self.space.diagonal()
        unknown = self.budget.max_gib is not None and self.stored is None
        return every[:1] if unknown else [a for a in every if self.allows(a)]

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
            size=None if self.weights is None else self.bpw,
            profile=self.profile,
            max_size=self.budget.max_bpw,
            min_score=self.budget.least_score(points),
            limits=limits,
        )
