"""The layers to export, read block by block, without a model in memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.artifacts import Artifacts, NotStoredError
from mmq.artifacts.by_layer import LayerKeys, keys_by_layer
from mmq.artifacts.store import ArtifactKey
from mmq.contracts.target import ExportedLayer, WeightSpec
from mmq.export.folding import divide_rows
from mmq.export.source_checkpoint import SourceCheckpoint
from mmq.models.loading import LoadedModel
from mmq.models.skeleton import Skeleton
from mmq.system.memory import trim
from mmq.system.progress import progress_bar
from mmq.tensors.quantized_weight import QuantizedLayer, QuantizedWeight


def outline_model(skeleton: Skeleton, name: str, fingerprint: str) -> LoadedModel:
    """A model without weights, for code that reads names and components only."""
    return LoadedModel(
        module=nn.Module(),
        processor=None,
        family=skeleton.family,
        source=name,
        fingerprint=fingerprint,
        device="meta",
        components=skeleton.components,
    )


@dataclass(slots=True)
class ModelLayers:
    """Every linear layer of the components: quantized, or as stored in the checkpoint.

    One block is in memory at a time: reading layers in the model's order is fast.
    """

    artifacts: Artifacts
    checkpoint: SourceCheckpoint
    keys: LayerKeys  # in the model's order
    paths: Mapping[str, tuple[str, ...]]  # of lists of blocks, by component
    _number: tuple[str, int] = ("", -1)  # component and number of the block in memory
    _block: dict[ArtifactKey, Mapping[str, QuantizedLayer]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        artifacts: Artifacts,
        checkpoint: SourceCheckpoint,
        model: LoadedModel,
        allocation: BitAllocation,
    ) -> "ModelLayers":
        """The layers of an allocation. model: with or without weights."""
        paths = {name: component.paths for name, component in model.components.items()}
        return cls(artifacts, checkpoint, keys_by_layer(artifacts, model, allocation), paths)

    @property
    def artifact_keys(self) -> list[ArtifactKey]:
        """The quantized blocks, in the model's order."""
        return list(dict.fromkeys(key for _, _, key in self.keys.values() if key is not None))

    @property
    def complete(self) -> bool:
        """Whether everything that is quantized is in the store."""
        return all(self.artifacts.store.has(key) for key in self.artifact_keys)

    def source(self, name: str) -> Tensor:
        """A layer's weight (out, in) in the checkpoint, as it is stored."""
        _, layer, _ = self.keys[name]
        return self.checkpoint.weight(layer)

    def source_dtypes(self) -> Iterator[torch.dtype | None]:
        """The stored dtype of each layer in these blocks; None for one that is made of several."""
        for key in self.artifact_keys:
            for name in key.layers:
                yield self.checkpoint.dtype(self.keys[name][1])

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[ExportedLayer]:
        for name, (component, _, _) in self.keys.items():
            yield ExportedLayer(
                name, component, self.weight(name), self._folds_into(name), self.output_scale(name)
            )

    def specs(self, folds: bool, quiet: bool = False) -> dict[str, WeightSpec]:
        """How each quantized layer is stored; the store must be complete.

        folds: layers have the scales that the target folds into them.
        """
        specs = {}
        quantized = [name for name, (_, _, key) in self.keys.items() if key is not None]
        for name in progress_bar(
            quantized, desc="compute size", unit="layer", leave=False, quiet=quiet
        ):
            weight = self.weight(name)
            assert isinstance(weight, QuantizedWeight)
            divisor = self.output_scale(name) if folds else None
            spec = WeightSpec.of(weight if divisor is None else divide_rows(weight, divisor))
            specs[name] = replace(spec, folds=spec.input_scale and bool(self._folds_into(name)))
        return specs

    def weight(self, name: str) -> QuantizedWeight | Tensor:
        """A layer's quantized weight, or its tensor in the checkpoint."""
        quantized = self._quantized(name)
        if quantized is None:
            return self.source(name)
        return quantized.weight

    def _quantized(self, name: str) -> QuantizedLayer | None:
        """A layer from the store; None for one that is not quantized. One block is in memory."""
        component, layer, key = self.keys[name]
        if key is None:
            return None
        if self._number != (component, layer.block):
            self._number = component, layer.block
            self._block.clear()  # before the next one is read
            trim()
        if key not in self._block:
            layers = self.artifacts.store.get(key)
            if layers is None:
                raise NotStoredError(f"{key.name} is no longer in the store")
            self._block[key] = layers
        return self._block[key][name]

    def _folds_into(self, name: str) -> str:
        """The full name of the module that a layer's input scale can be folded into."""
        quantized = self._quantized(name)
        if quantized is None or not quantized.folds_into:
            return ""
        component, _, _ = self.keys[name]
        path = next(path for path in self.paths[component] if name.startswith(f"{path}."))
        number = name.removeprefix(f"{path}.").partition(".")[0]
        return f"{path}.{number}.{quantized.folds_into}"

    def output_scale(self, name: str) -> Tensor | None:
        """The input scale of the layers after a layer that can be folded into it."""
        if not getattr(self.artifacts.quantizer, "folds", False):
            return None
        component, layer, _ = self.keys[name]
        for other, (its_component, its_layer, _) in self.keys.items():
            if (its_component, its_layer.block) == (component, layer.block):
                quantized = self._quantized(other)
                if quantized is not None and self._folds_into(other) == name:
                    return quantized.weight.input_scale
        return None

    def dequantized(self, name: str, folded: bool = False) -> Tensor:
        """A layer's expected weight, float32 (out, in).

        folded: without its input scale, and divided by the scale that was folded into it.
        """
        weight = self.weight(name)
        if isinstance(weight, Tensor):
            return weight.to(torch.float32)
        if not folded:
            return weight.dequantize()
        plain = replace(weight, input_scale=None).dequantize()
        scale = self.output_scale(name)
        return plain if scale is None else plain / scale.float()[:, None]
