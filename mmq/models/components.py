"""The components of a model: their blocks, linear layers and sizes."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from mmq.allocation.parts import Part, block_group
from mmq.contracts.family import ComponentSpec, ModelFamily
from mmq.errors import InputError
from mmq.models.checkpoint import fingerprint as fingerprint
from mmq.models.checkpoint import locate as locate
from mmq.models.checkpoint import read_config as read_config
from mmq.models.checkpoint import read_protocol as read_protocol
from mmq.models.loaded import LoadedModel as LoadedModel
from mmq.models.transformers_loading import load_weights as load_weights


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer inside a component's transformer block."""

    name: str  # path from the model's root
    block: int
    layer_type: str  # attn or ff
    module: nn.Linear

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        return self.module.out_features, self.module.in_features


@dataclass(frozen=True, slots=True)
class Component:
    """A component: its name, its number of blocks and every linear layer in them."""

    name: str
    blocks: int
    layers: tuple[Layer, ...]
    paths: tuple[str, ...] = ()  # of its lists of blocks

    @property
    def weights(self) -> int:
        """Number of weights that a bit width applies to."""
        return sum(layer.module.weight.numel() for layer in self.layers)

    def part(self, layer: Layer) -> Part:
        """The finest part of the model that contains a layer of this component."""
        return self.name, block_group(layer.block, self.blocks), layer.layer_type


def _resolve(root: nn.Module, spec: ComponentSpec) -> tuple[str, nn.Module]:
    for path in spec.paths:
        try:
            return path, root.get_submodule(path)
        except AttributeError:
            continue
    node: nn.Module = root
    prefix: list[str] = []
    for part in spec.paths[0].split("."):  # descend the first path as far as it exists
        if not hasattr(node, part):
            break
        node, prefix = getattr(node, part), [*prefix, part]
    children = ", ".join(name for name, _ in node.named_children()) or "none"
    raise InputError(
        f"Component {spec.name!r}: none of {', '.join(spec.paths)} exists in "
        f"{type(root).__name__}. Children of {'.'.join(prefix) or 'the model'}: {children}."
    )


def find_components(root: nn.Module, family: ModelFamily) -> dict[str, Component]:
    """The components of a model (real or on the meta device), in the family's order."""
    components: dict[str, Component] = {}
    for spec in family.component_specs(root):
        path, blocks = _resolve(root, spec)
        if not isinstance(blocks, nn.ModuleList):
            raise InputError(f"Component {spec.name!r}: {path} is not an nn.ModuleList of blocks")
        so_far = components.get(spec.name, Component(spec.name, 0, ()))
        layers = tuple(_block_layers(path, blocks, spec, so_far.blocks))
        if not layers:
            raise InputError(f"Component {spec.name!r}: no linear layer in the blocks of {path}")
        components[spec.name] = Component(
            spec.name, so_far.blocks + len(blocks), so_far.layers + layers, (*so_far.paths, path)
        )
    return components


def _block_layers(
    path: str, blocks: nn.ModuleList, spec: ComponentSpec, first: int
) -> Iterator[Layer]:
    for index, block in enumerate(blocks):
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear):
                is_attention = any(marker in name for marker in spec.attention)
                layer_type = "attn" if is_attention else "ff"
                yield Layer(f"{path}.{index}.{name}", first + index, layer_type, module)


def count_parameters(module: nn.Module) -> int:
    """Number of parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())
