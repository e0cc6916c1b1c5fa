"""Sizes: bits per weight over the whole model, planned from shapes or measured by a report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.allocation.parts import Part, finest
from mmq.contracts import QuantReport
from mmq.contracts.quantizer import Quantizer
from mmq.models.components import Component
from mmq.models.row_quantizer import quantizer_for
from mmq.system.disk import BITS_PER_GIB


@dataclass(frozen=True, slots=True)
class Size:
    """How large a model is under an allocation.

    bpw: bits per weight over all parameters, unquantized ones at 16 (the paper's size axis).
    stored_bpw: the same with scales, zero points and input scales counted. reach: share of the
    parameters that the allocation quantizes.
    """

    parameters: int
    bpw: float
    stored_bpw: float | None = None
    reach: float | None = None

    @property
    def gib(self) -> float:
        """Size in GiB at bpw."""
        return self.parameters * self.bpw / BITS_PER_GIB

    @property
    def stored_gib(self) -> float | None:
        """Size in GiB with everything that is stored."""
        return (
            None if self.stored_bpw is None else self.parameters * self.stored_bpw / BITS_PER_GIB
        )


def planned_bpw(
    allocation: BitAllocation, components: Mapping[str, Component], parameters: int
) -> float:
    """The exact bpw of an allocation, from shapes alone."""
    widths = allocation.widths(components)
    saved = sum(
        (UNQUANTIZED - widths[component.part(layer)]) * layer.weights
        for component in components.values()
        for layer in component.layers
    )
    return UNQUANTIZED - saved / parameters


def planned_size(
    allocation: BitAllocation,
    components: Mapping[str, Component],
    parameters: int,
    quantizer: Quantizer,
) -> Size:
    """The size of an allocation, from shapes and quantizer options alone."""
    widths = allocation.widths(components)
    stored = stored_bits(components, quantizer, set(widths.values()))
    counts = _finest_weights(components)
    saved = sum(UNQUANTIZED * weights - stored[part, widths[part]]
                for part, weights in counts.items())  # fmt: skip
    quantized = sum(n for part, n in counts.items() if widths[part] != UNQUANTIZED)
    return Size(
        parameters,
        planned_bpw(allocation, components, parameters),
        UNQUANTIZED - saved / parameters,
        quantized / parameters,
    )


def stored_bits(
    components: Mapping[str, Component], quantizer: Quantizer, widths: Iterable[int]
) -> dict[tuple[Part, int], int]:
    """Bits of every finest part at every width, including scales and zero points."""
    widths = list(widths)
    totals = {(part, bits): 0 for part in _finest_weights(components) for bits in widths}
    for component in components.values():
        own = quantizer_for(component, quantizer)
        by_shape: dict[tuple[tuple[int, int], int], int] = {}
        for layer in component.layers:
            for bits in widths:
                key = layer.shape, bits
                if key not in by_shape:
                    by_shape[key] = (
                        UNQUANTIZED * layer.weights if bits == UNQUANTIZED
                        else own.stored_bits(layer.shape, bits)
                    )  # fmt: skip
                totals[component.part(layer), bits] += by_shape[key]
    return totals


def measure_size(report: QuantReport, parameters: int) -> Size:
    """The size of what was actually quantized: skipped layers count 16 bits."""
    saved = stored_saved = quantized = 0
    for layer in report.layers:
        weights = layer.shape[0] * layer.shape[1]
        if layer.stored_bits is not None:
            saved += weights * (UNQUANTIZED - layer.bits)
            stored_saved += weights * UNQUANTIZED - layer.stored_bits
            quantized += weights
    bpw, stored_bpw = (UNQUANTIZED - bits / parameters for bits in (saved, stored_saved))
    return Size(parameters, bpw, stored_bpw, quantized / parameters)


def _finest_weights(components: Mapping[str, Component]) -> dict[Part, int]:
    """Number of weights of every finest part."""
    counts = dict.fromkeys((part for name in components for part in finest(name, components)), 0)
    for component in components.values():
        for layer in component.layers:
            counts[component.part(layer)] += layer.weights
    return counts


def part_weights(parts: Iterable[str], components: Mapping[str, Component]) -> list[int]:
    """Number of quantizable weights in each of these parts."""
    counts = _finest_weights(components)
    return [sum(counts[part] for part in finest(name, components)) for name in parts]


def part_bits(
    parts: Iterable[str],
    components: Mapping[str, Component],
    quantizer: Quantizer,
    widths: Iterable[int],
) -> dict[tuple[str, int], int]:
    """Bits of each of these parts at each width, including scales and zero points."""
    widths = list(widths)
    totals = stored_bits(components, quantizer, widths)
    return {
        (name, bits): sum(totals[part, bits] for part in finest(name, components))
        for name in parts
        for bits in widths
    }
