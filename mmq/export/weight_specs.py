"""How a quantizer will store a weight, before any weight is read."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import torch

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer
from mmq.contracts.target import WeightSpec
from mmq.models.components import Component, Layer
from mmq.models.row_quantizer import quantizer_for
from mmq.tensors.layer_inputs import LayerInputs
from mmq.tensors.quantized_weight import QuantizedWeight

ROWS = 16  # rows of the random weight that is quantized
COLUMNS = 128  # columns of that weight, if there is no group size
TOKENS = 256  # number of random calibration inputs
LOUD = 50.0  # factor of some inputs: AWQ scales them, act-order sorts them


def planned_spec(quantizer: Quantizer, inputs: int, bits: int) -> WeightSpec:
    """How a weight with this many inputs will be stored, found by quantizing a random one."""
    return _probed(quantizer.at(bits), inputs, bits)


@lru_cache(maxsize=1024)
def _probed(quantizer: Quantizer, inputs: int, bits: int) -> WeightSpec:
    group_size = getattr(quantizer, "group_size", 0)
    columns = min(inputs, 2 * group_size if group_size else COLUMNS)
    generator = torch.Generator().manual_seed(0)
    weight = 0.05 * torch.randn(ROWS, columns, generator=generator)
    spec = WeightSpec.of(_quantized(quantizer, weight, bits, generator))
    if group_size and group_size != inputs and not spec.per_tensor:
        spec = replace(spec, group_size=group_size)
    if not isinstance(quantizer, CalibratedQuantizer):
        return spec
    scaled = spec.input_scale or quantizer.scales_inputs  # random inputs may need no scales
    return replace(spec, input_scale=scaled, folds=quantizer.folds and scaled)


def _quantized(
    quantizer: Quantizer, weight: torch.Tensor, bits: int, generator: torch.Generator
) -> QuantizedWeight:
    if not isinstance(quantizer, CalibratedQuantizer):
        return quantizer.quantize(weight, bits)
    columns = weight.shape[1]
    inputs = LayerInputs(columns, max_rows=quantizer.sampled_inputs)
    tokens = torch.randn(TOKENS, columns, generator=generator)
    tokens[:, ::7] *= LOUD
    inputs.update_(tokens)
    inputs.foldable = True
    (solved,) = quantizer.solve([weight], inputs, [bits])
    return solved[bits].weight


def planned_specs(
    allocation: BitAllocation, quantizer: Quantizer, components: Mapping[str, Component]
) -> dict[str, tuple[str, Layer, WeightSpec]]:
    """Component, layer and spec of every layer that an allocation quantizes, by its name."""
    widths = allocation.widths(components)
    specs: dict[str, tuple[str, Layer, WeightSpec]] = {}
    for name, component in components.items():
        own = quantizer_for(component, quantizer)
        probed: dict[tuple[int, int], WeightSpec] = {}
        for layer in component.layers:
            bits = widths[component.part(layer)]
            if bits == UNQUANTIZED:
                continue
            key = layer.shape[1], bits
            if key not in probed:
                probed[key] = planned_spec(own, *key)
            specs[layer.name] = name, layer, probed[key]
    return specs
