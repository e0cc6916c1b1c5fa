"""The components of a model: their blocks, linear layers and sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from torch import Tensor, nn

from mmq.allocation.parts import Part, block_group
from mmq.contracts.family import ComponentSpec, ModelFamily
from mmq.errors import InputError
from mmq.models.checkpoint import fingerprint as fingerprint
from mmq.models.checkpoint import locate as locate
from mmq.models.checkpoint import read_config as read_config
from mmq.models.checkpoint import read_protocol as read_protocol
from mmq.models.loaded import LoadedModel as LoadedModel
from mmq.models.transformers_loading import load_weights as load_weights
from mmq.tensors.matrices import Identity, Matrix, holders, matrices, with_twins


@dataclass(frozen=True, slots=True)
class Layer:
    """A weight inside a component's transformer block: a linear layer's, or that of one expert."""

    name: str  # path from the model's root; an expert's ends in its parameter and its index
    block: int
    layer_type: str  # attn or ff
    matrix: Matrix

    @property
    def module(self) -> nn.Module:
        """The module that holds the weight."""
        return self.matrix.module

    @property
    def weight(self) -> Tensor:
        """The weight (out, in), to read."""
        return self.matrix.weight

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        return self.matrix.shape

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True, slots=True)
class Component:
    """A component: its name, its number of blocks and every weight matrix in them.

    A weight that several layers share is in the first of them alone.
    """

    name: str
    blocks: int
    layers: tuple[Layer, ...]
    paths: tuple[str, ...] = ()  # paths of its lists of blocks, or of single modules
    per_row: bool = False  # a table: rounded to nearest with one range per row
    twins: tuple[tuple[str, str], ...] = ()  # paths of a list and of one with the same weights

    @property
    def weights(self) -> int:
        """Number of weights that a bit width applies to."""
        return sum(layer.weights for layer in self.layers)

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
    identities: set[Identity] = set()  # weights that have a layer
    owners = holders(root)
    twins: list[str] = []
    for spec in family.component_specs(root):
        path, blocks = _resolve(root, spec)
        if not isinstance(blocks, nn.ModuleList):
            raise InputError(f"Component {spec.name!r}: {path} is not an nn.ModuleList of blocks")
        if not blocks:  # configured without any: what is around them stays at 16 bits
            continue
        so_far = components.get(spec.name, Component(spec.name, 0, ()))
        layers = tuple(
            replace(layer, matrix=with_twins(layer.matrix, owners))
            for layer in _block_layers(path, blocks, spec, so_far.blocks, identities)
        )
        if not layers and any(True for _ in matrices(blocks)):
            twins.append(path)  # all of its weights are those of other blocks
            continue
        if not layers:
            raise InputError(f"Component {spec.name!r}: no linear layer in the blocks of {path}")
        components[spec.name] = Component(
            spec.name, so_far.blocks + len(blocks), so_far.layers + layers, (*so_far.paths, path)
        )
    if not components:
        raise InputError(f"{type(root).__name__}: its configuration has no transformer blocks")
    return {
        name: replace(component, twins=tuple(_twins(root, component.paths, twins)))
        for name, component in components.items()
    }


def _twins(
    root: nn.Module, paths: Sequence[str], twins: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """The lists whose blocks have, one by one, the weights of a list's blocks."""
    for path, twin in product(paths, twins):
        if _weights(root, path) == _weights(root, twin):
            yield path, twin


def _weights(root: nn.Module, path: str) -> list[set[Identity]]:
    """The matrices in each block of a list."""
    blocks = root.get_submodule(path)
    assert isinstance(blocks, nn.ModuleList)
    return [{matrix.identity for _, matrix in matrices(block)} for block in blocks]


def _block_layers(
    path: str, blocks: nn.ModuleList, spec: ComponentSpec, first: int, identities: set[Identity]
) -> Iterator[Layer]:
    for index, block in enumerate(blocks):
        for name, matrix in matrices(block):
            if matrix.identity in identities:
                continue
            identities.add(matrix.identity)
            is_attention = any(marker in name for marker in spec.attention)
            layer_type = "attn" if is_attention else "ff"
            yield Layer(f"{path}.{index}.{name}", first + index, layer_type, matrix)


def count_parameters(module: nn.Module) -> int:
    """Number of parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())
