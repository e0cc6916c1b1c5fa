"""Input scales of layers folded into the norms before them, exactly."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmq.contracts.target import ExportedLayer
from mmq.errors import InputError
from mmq.tensors.quantized_weight import QuantizedWeight

PARTS = ("weight", "bias")


@dataclass(slots=True)
class Folding:
    """Collects the scales of layers as they are written, then divides norms by them.

    stored: names in the checkpoint's files, by parameter. layers: those whose scales were folded.
    """

    stored: Mapping[str, str]
    scales: dict[str, Tensor] = field(default_factory=dict)  # by norm
    layers: list[str] = field(default_factory=list)
    wider: list[str] = field(default_factory=list)  # tensors that are written in float32

    def collecting(self, layers: Iterable[ExportedLayer]) -> Iterator[ExportedLayer]:
        """The same layers; InputError for one whose scale cannot be folded."""
        for layer in layers:
            if isinstance(layer.weight, QuantizedWeight) and layer.weight.input_scale is not None:
                self._add(layer, layer.weight.input_scale)
            yield layer

    def _add(self, layer: ExportedLayer, scale: Tensor) -> None:
        if not layer.folds_into:
            raise InputError(
                f"target: the input scale of {layer.name} cannot be folded into a norm; "
                f"quantize with awq's --foldable true, or another quantizer"
            )
        other = self.scales.setdefault(layer.folds_into, scale)
        if not torch.equal(other, scale):
            raise InputError(
                f"target: layers behind {layer.folds_into} have different input scales, such as "
                f"{layer.name}; give them the same bits"
            )
        self.layers.append(layer.name)

    def change(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the checkpoint; a norm's is divided, in float32 if 16 bits are not exact."""
        divisor = self._by_name().get(name)
        if divisor is None:
            return tensor
        exact = tensor.float() / divisor.to(torch.float32)
        changed = exact.to(tensor.dtype)
        if torch.equal(changed.float(), exact):
            return changed
        self.wider.append(name)
        return exact

    def _by_name(self) -> dict[str, Tensor]:
        return {
            self.stored[f"{norm}.{part}"]: scale
            for norm, scale in self.scales.items()
            for part in PARTS
            if f"{norm}.{part}" in self.stored
        }

    @property
    def note(self) -> str:
        """What was folded, for the report; "" for nothing."""
        if not self.layers:
            return ""
        wider = (
            f" {len(self.wider)} of their tensors need float32; a model loaded in 16 bits rounds "
            f"them."
            if self.wider
            else ""
        )
        return (
            f"Input scales of {len(self.layers)} layers are folded into {len(self.scales)} norms "
            f"(powers of two: exact); no other layer has any.{wider}"
        )
