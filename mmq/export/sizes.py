"""Bytes of a target's files for every allocation of a search, before any weight is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.allocation.parts import finest
from mmq.contracts.quantizer import Quantizer
from mmq.contracts.report import QuantReport
from mmq.contracts.target import ExportSource, Target, WeightSpec
from mmq.export.plan import check_quantized, promised_bytes
from mmq.export.source_checkpoint import SourceCheckpoint
from mmq.export.weight_specs import planned_specs
from mmq.models.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class PartSums:
    """A quantity of a model that is a sum over its parts: bytes, or seconds.

    total: with every part at the width where its change is 0. changes: by part and width.
    """

    total: float
    changes: Mapping[tuple[str, int], float]

    def at(self, widths: Mapping[str, int]) -> float:
        """The quantity of an allocation: one width per part."""
        return self.total + sum(self.changes[pair] for pair in widths.items())


@dataclass(frozen=True, slots=True)
class TargetSizes:
    """Sizes of all files of a target, with embeddings, processor and metadata.

    sums: the bytes as a sum over the parts of the search, from which a sampler proposes; they
    differ from the exact ones by a few bytes of metadata.
    """

    target_name: str
    target: Target
    quantizer: Quantizer
    source: ExportSource
    checkpoint: SourceCheckpoint
    sums: PartSums
    _exact: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        target_name: str,
        target: Target,
        quantizer: Quantizer,
        skeleton: Skeleton,
        folder: Path,
        dtype: str,
        widths: Mapping[str, Sequence[int]],
    ) -> "TargetSizes":
        """From the headers of a checkpoint; InputError for a model that the target cannot write.

        widths: by part of the search.
        """
        checkpoint = SourceCheckpoint.open(folder, skeleton)
        source = checkpoint.as_source(skeleton, dtype)
        plain = cls(target_name, target, quantizer, source, checkpoint, PartSums(0, {}))
        widest = {
            part: max((b for b in own if b != UNQUANTIZED), default=UNQUANTIZED)
            for part, own in widths.items()
        }
        allocation = BitAllocation.of(widest)
        target.check(allocation, quantizer, skeleton)
        total = plain.exact(allocation)
        changes: dict[tuple[str, int], float] = {}
        for part, own in widths.items():
            stored = {b: plain._stored(part, b) for b in own if b != UNQUANTIZED}
            for bits, size in stored.items():
                changes[part, bits] = size - stored[widest[part]]
            if UNQUANTIZED in own:
                without = BitAllocation.of(widest | {part: UNQUANTIZED})
                changes[part, UNQUANTIZED] = plain.exact(without) - total if stored else 0.0
        return replace(plain, sums=PartSums(total, changes))

    def _stored(self, part: str, bits: int) -> float:
        """Bytes of the layers of a part at a width."""
        components = self.source.skeleton.components
        pieces = set(finest(part, components))
        allocation = BitAllocation.of({part: bits})
        specs = planned_specs(allocation, self.quantizer, components)
        return sum(
            self.target.stored_bits(layer.shape, spec) / 8
            for name, layer, spec in specs.values()
            if components[name].part(layer) in pieces
        )

    def specs(
        self, allocation: BitAllocation, report: QuantReport | None = None
    ) -> dict[str, WeightSpec]:
        """How each quantized layer is stored; with a report, as it turned out.

        A layer that takes more bits than planned has scales outside of float16's range.
        """
        planned = planned_specs(allocation, self.quantizer, self.source.skeleton.components)
        stored = {} if report is None else {x.name: x.stored_bits for x in report.layers}
        specs = {}
        for name, (_, layer, spec) in planned.items():
            expected = self.quantizer.stored_bits(layer.shape, spec.bits)
            if (stored.get(name) or expected) > expected:
                spec = replace(spec, scale_dtype="float32")
            specs[name] = spec
        return specs

    def exact(self, allocation: BitAllocation, report: QuantReport | None = None) -> int:
        """Bytes of all files of an allocation; with a report, of its layers as they turned out.

        InputError, from a report, for a layer that the target cannot store after all.
        """
        specs = self.specs(allocation, report)
        if report is not None:
            check_quantized(self.target_name, self.target, specs, self.source.skeleton)
            return self._promised(specs)
        if str(allocation) not in self._exact:
            self._exact[str(allocation)] = self._promised(specs)
        return self._exact[str(allocation)]

    def _promised(self, specs: Mapping[str, WeightSpec]) -> int:
        return promised_bytes(self.target, replace(self.source, specs=specs), self.checkpoint)

    def source_for(self, allocation: BitAllocation) -> ExportSource:
        """The source of an export of an allocation."""
        return replace(self.source, specs=self.specs(allocation))
