"""Where the weights of a spread model go, and its components there."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import nn

from mmq.models.components import Component, Layer
from mmq.models.spread import Spread
from mmq.system.disk import in_mib
from mmq.tensors.matrices import Matrix


def planned_placement(root: nn.Module, dtype: torch.dtype, spread: Spread) -> Mapping[str, int]:
    """Bytes of weights on each device, from a model on the meta device."""
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    own = getattr(root, "_no_split_modules", None) or []
    unsplit = [name for name in own if name]
    root.to(dtype)
    memory = get_balanced_memory(
        root, spread.max_memory, no_split_module_classes=unsplit, dtype=dtype
    )
    places = infer_auto_device_map(
        root, max_memory=memory, no_split_module_classes=unsplit, dtype=dtype
    )
    sizes: dict[str, int] = defaultdict(int)
    visited: set[int] = set()
    for name, parameter in root.named_parameters():
        place = next((p for m, p in places.items() if not m or f"{name}.".startswith(f"{m}.")), "")
        if id(parameter) not in visited:
            visited.add(id(parameter))
            sizes[f"GPU {place}" if isinstance(place, int) else str(place)] += parameter.nbytes
    return dict(sizes)


def describe_placement(
    root: nn.Module, components: Mapping[str, Component], dtype: torch.dtype, spread: Spread
) -> str:
    """The memory that a spread model needs on each device, from a model on the meta device."""
    sizes = planned_placement(root, dtype, spread)
    where = ", ".join(f"{in_mib(size)} on {place}" for place, size in sizes.items())
    blocks: dict[tuple[str, int], int] = defaultdict(int)
    for name, component in components.items():
        for layer in component.layers:
            blocks[name, layer.block] += layer.weights * dtype.itemsize
    weights = sum(component.weights for component in components.values()) * dtype.itemsize
    kind = str(dtype).removeprefix("torch.")
    return (
        f"placement in {kind}: {where}\n"
        f"at once on the device: {in_mib(max(blocks.values()))} for the largest block, its inputs "
        f"and the sums over them aside\n"
        f"beside it on disk: up to {in_mib(weights)} of original weights while a trial runs, and "
        f"as much again of what was written where weights are on disk"
    )


def rebind(components: Mapping[str, Component], root: nn.Module) -> dict[str, Component]:
    """The same components, with the modules of another copy of the model.

    Shared weights are recognized before a model is spread: afterwards each has its own place.
    """

    def moved(layer: Layer) -> Layer:
        old = layer.matrix
        suffix = "" if old.expert is None else f".{old.key}.{old.expert}"
        module = root.get_submodule(layer.name.removesuffix(suffix))
        matrix = Matrix(module, old.key, old.expert, old.transposed)
        return Layer(layer.name, layer.block, layer.layer_type, matrix)

    return {
        name: Component(
            name, c.blocks, tuple(moved(layer) for layer in c.layers), c.paths, c.per_row
        )
        for name, c in components.items()
    }
