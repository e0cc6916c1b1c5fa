"""Input scales of layers folded into the norms and linear layers before them, exactly."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mmq.contracts.target import ExportedLayer
from mmq.errors import InputError
from mmq.tensors.quantized_weight import QuantizedWeight

PARTS = ("weight", "bias")


@dataclass(slots=True)
class Folding:
    """Collects the scales of layers as they are written, then divides what precedes them.

    stored: names in the checkpoint's files, by parameter. scales: by the module that takes one.
    scaled: layers whose input scales are folded. divided: quantized linear layers that take one.
    """

    stored: Mapping[str, str]
    scales: dict[str, Tensor] = field(default_factory=dict)
    scaled: set[str] = field(default_factory=set)
    divided: set[str] = field(default_factory=set)
    unscaled: set[str] = field(default_factory=set)  # last words of the names of other layers
    wider: set[str] = field(default_factory=set)  # tensors that need float32

    def collecting(self, layers: Iterable[ExportedLayer]) -> Iterator[ExportedLayer]:
        """The same layers, rows divided where they take a scale.

        InputError for a layer whose scale cannot be folded.
        """
        for layer in layers:
            weight, scale = layer.weight, layer.output_scale
            if isinstance(weight, QuantizedWeight):
                if weight.input_scale is not None:
                    self._add(layer, weight.input_scale)
                else:
                    self.unscaled.add(layer.name.rpartition(".")[2])
                if scale is not None:
                    yield replace(layer, weight=self._divided(layer.name, weight, scale))
                    continue
            yield layer

    def _divided(self, name: str, weight: QuantizedWeight, scale: Tensor) -> QuantizedWeight:
        divided = divide_rows(weight, scale)
        self.divided.add(name)
        if divided.scale.dtype != weight.scale.dtype:
            self.wider.add(name)
        return divided

    def _add(self, layer: ExportedLayer, scale: Tensor) -> None:
        if not layer.folds_into:
            raise InputError(
                f"target: nothing before {layer.name} can take its input scale; quantize with "
                f"awq's --foldable true, or another quantizer"
            )
        other = self.scales.setdefault(layer.folds_into, scale)
        if not torch.equal(other, scale):
            raise InputError(
                f"target: layers after {layer.folds_into} have different input scales, such as "
                f"{layer.name}; give them the same bits"
            )
        self.scaled.add(layer.name)

    def change(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the checkpoint, divided if it takes a scale; in float32 if 16 bits round."""
        divisor = self._by_name().get(name)
        if divisor is None:
            return tensor
        column = divisor.float().reshape(-1, *[1] * (tensor.dim() - 1))
        exact = tensor.float() / column
        changed = exact.to(tensor.dtype)
        if torch.equal(changed.float(), exact):
            return changed
        self.wider.add(name)
        return exact

    def _by_name(self) -> dict[str, Tensor]:
        return {
            self.stored[f"{module}.{part}"]: scale
            for module, scale in self.scales.items()
            for part in PARTS
            if f"{module}.{part}" in self.stored
        }

    @property
    def layers(self) -> frozenset[str]:
        """Layers whose weights are stored without an input scale, or with divided rows."""
        return frozenset(self.scaled | self.divided)

    @property
    def note(self) -> str:
        """The folded layers and the unscaled ones, for the report; "" if there are none."""
        if not self.scaled:
            return ""
        kinds = ", ".join(sorted(self.unscaled))
        others = f" Layers without input scales: {kinds}." if kinds else ""
        wider = (
            f" {len(self.wider)} of their tensors need float32; a model loaded in 16 bits rounds "
            f"them."
            if self.wider
            else ""
        )
        norms = len(self.scales.keys() - self.divided)
        return (
            f"Input scales of {len(self.scaled)} layers are folded into {norms} norms and "
            f"{len(self.divided)} linear layers (powers of two: exact).{others}{wider}"
        )


def divide_rows(weight: QuantizedWeight, divisor: Tensor) -> QuantizedWeight:
    """A weight whose rows (out, in) are divided by powers of two (out,): its scales are.

    They are float32 where their own dtype rounds them.
    """
    rows = len(weight.codes)
    exact = weight.scale.float().expand(rows, -1) / divisor.float()[:, None]
    scale = exact.to(weight.scale.dtype)
    zero = weight.zero_point
    return replace(
        weight,
        scale=scale if torch.equal(scale.float(), exact) else exact,
        zero_point=None if zero is None else zero.expand(rows, -1),
    )
