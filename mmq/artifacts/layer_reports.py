"""The report of a trial about each layer, quantized or not."""

from dataclasses import replace

from mmq.allocation.allocation import UNQUANTIZED
from mmq.contracts import LayerReport
from mmq.models.components import Layer
from mmq.tensors.quantized_weight import QuantizedLayer


def layer_report(component: str, layer: Layer, quantized: QuantizedLayer) -> LayerReport:
    """The report of a layer that was quantized."""
    weight = quantized.weight
    return replace(
        unquantized_report(component, layer),
        bits=weight.bits,
        skipped=None,
        group_size=weight.group_size,
        stored_bits=weight.stored_bits,
        relative_error=quantized.relative_error,
        output_error=quantized.output_error,
        note=quantized.note,
    )


def unquantized_report(component: str, layer: Layer) -> LayerReport:
    """The report of a layer that stays as it is."""
    return LayerReport(
        name=layer.name,
        component=component,
        block=layer.block,
        layer_type=layer.layer_type,
        shape=layer.shape,
        bits=UNQUANTIZED,
        skipped="its part of the model stays at 16 bits",
    )
