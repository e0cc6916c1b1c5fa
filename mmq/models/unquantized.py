"""Weights that stay at 16 bits, by module: all outside the components' layers."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from mmq.errors import InputError

if TYPE_CHECKING:
    from mmq.models.components import Component

VECTORS = "biases, norms and other vectors"


@dataclass(frozen=True, slots=True)
class UnquantizedModule:
    """A module whose weights stay at 16 bits, with its number of linear layers and weights."""

    name: str  # tied modules are joined by " = "
    linears: int
    weights: int


def unquantized_modules(
    root: nn.Module, components: "Mapping[str, Component]"
) -> tuple[UnquantizedModule, ...]:
    """All parameters outside the components' layers, largest module first.

    Together with the components' weights they are all of the model's parameters.
    """
    quantized = {id(layer.matrix.parameter) for c in components.values() for layer in c.layers}
    names: dict[int, list[str]] = defaultdict(list)  # tied parameters have several
    sizes: dict[int, int] = {}
    for path, parameter in root.named_parameters(remove_duplicate=False):
        if id(parameter) not in quantized:
            group = _group(path, components) if parameter.dim() > 1 else VECTORS
            if group not in names[id(parameter)]:
                names[id(parameter)].append(group)
            sizes[id(parameter)] = parameter.numel()
    linears: dict[str, int] = defaultdict(int)
    for _, module in root.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear) and id(module.weight) not in quantized:
            linears[" = ".join(names[id(module.weight)])] += 1
    weights: dict[str, int] = defaultdict(int)
    for key, groups in names.items():
        weights[" = ".join(groups)] += sizes[key]
    modules = [UnquantizedModule(name, linears[name], count) for name, count in weights.items()]
    return tuple(sorted(modules, key=lambda module: -module.weights))


def _group(path: str, components: "Mapping[str, Component]") -> str:
    """The outermost module around a parameter that contains no component's blocks."""
    for name, component in components.items():
        if any(path.startswith(f"{blocks}.") for blocks in component.paths):
            return f"{name} blocks, not in a linear layer"
    parts = path.split(".")
    for length in range(1, len(parts)):
        module = ".".join(parts[:length])
        holders = [blocks for c in components.values() for blocks in c.paths]
        if not any(blocks.startswith(f"{module}.") for blocks in holders):
            return module
    return path


def unread_blocks(config: Any) -> int:
    """Number of final vision blocks whose output is never read (LLaVA-1.5: one).

    LLaVA's projector reads the hidden states of `vision_feature_layer`: 0 is the embeddings, -1
    the last block's output, -2 that of the block before it. Unread blocks count in the
    size, but their bits cannot change a score.
    """
    layers = getattr(config, "vision_feature_layer", None)
    blocks = getattr(getattr(config, "vision_config", None), "num_hidden_layers", None)
    if layers is None or blocks is None:
        return 0
    selected = [layers] if isinstance(layers, int) else layers
    for layer in selected:
        if not -blocks - 1 <= layer <= blocks:
            raise InputError(
                f"model: config.json: vision_feature_layer: {layer} is not a layer of a vision "
                f"tower with {blocks}"
            )
    return int(blocks - max(layer % (blocks + 1) for layer in selected))
