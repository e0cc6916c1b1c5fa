"""A model and its components: which linear layers a bit width applies to."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmq import registry
from mmq.checkpoint import fingerprint as fingerprint
from mmq.checkpoint import locate as locate
from mmq.checkpoint import read_config as read_config
from mmq.checkpoint import read_protocol as read_protocol
from mmq.checkpoint_errors import reading
from mmq.contracts import ComponentSpec, ModelFamily, architecture_of
from mmq.errors import InputError
from mmq.kept import Kept, kept_modules, unread_blocks
from mmq.loaded import LoadedModel as LoadedModel
from mmq.parts import Part, block_group
from mmq.transformers_loading import check_outline, quietly
from mmq.transformers_loading import load_weights as load_weights

log = logging.getLogger(__name__)
MOST_PARAMETERS = 10**13
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


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
        """The finest part of the model that a layer of this component is in."""
        return self.name, block_group(layer.block, self.blocks), layer.layer_type


def _resolve(root: nn.Module, spec: ComponentSpec) -> tuple[str, nn.Module]:
    for path in spec.paths:
        try:
            return path, root.get_submodule(path)
        except AttributeError:
            continue
    node: nn.Module = root
    walked: list[str] = []
    for part in spec.paths[0].split("."):  # walk as far as the first candidate goes
        if not hasattr(node, part):
            break
        node, walked = getattr(node, part), [*walked, part]
    children = ", ".join(name for name, _ in node.named_children()) or "none"
    raise InputError(
        f"Component {spec.name!r}: none of {', '.join(spec.paths)} exists in "
        f"{type(root).__name__}. Children of {'.'.join(walked) or 'the model'}: {children}."
    )


def find_components(root: nn.Module, family: ModelFamily) -> dict[str, Component]:
    """The components of a model (real or on the meta device), in the family's order."""
    components: dict[str, Component] = {}
    for spec in family.component_specs(root):
        path, blocks = _resolve(root, spec)
        if not isinstance(blocks, nn.ModuleList):
            raise InputError(f"Component {spec.name!r}: {path} is no list of blocks")
        before = components.get(spec.name, Component(spec.name, 0, ()))
        layers = tuple(_block_layers(path, blocks, spec, before.blocks))
        if not layers:
            raise InputError(f"Component {spec.name!r}: no linear layer in the blocks of {path}")
        components[spec.name] = Component(
            spec.name, before.blocks + len(blocks), before.layers + layers, (*before.paths, path)
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


def family_of(config: Any) -> ModelFamily:
    """The installed family for a configuration, the general ones last; InputError for none."""
    families: list[ModelFamily] = []
    unusable: list[str] = []
    for plugin in registry.installed("model family"):
        try:
            families.append(registry.load_class("model family", plugin.name, ModelFamily)())
        except InputError as error:  # a broken plugin must not stop the others
            unusable.append(str(error))
    for family in sorted(families, key=lambda family: family.general):
        if family.serves(config):
            return family
    names = {name for family in families for name in family.architectures if name[0].isupper()}
    raise InputError(
        " ".join(
            [
                f"No model family for {architecture_of(config)}.",
                f"Supported architectures: {', '.join(sorted(names))}.",
                *unusable,
            ]
        )
    )


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A model without weights: enough to know its components, shapes and size."""

    family: ModelFamily
    components: dict[str, Component]
    parameters: int
    kept: tuple[Kept, ...]  # what stays at 16 bits
    unread_blocks: int  # last blocks of the vision tower whose output nothing reads


def skeleton(source: str) -> Skeleton:
    """Components and number of parameters from a configuration alone, in under a second."""
    config = read_config(source)
    family = family_of(config)
    module = _on_meta(source, family, config)
    components = find_components(module, family)
    parameters = count_parameters(module)
    if parameters > MOST_PARAMETERS:
        raise InputError(f"Model {source!r}: its configuration asks for {parameters:,} parameters")
    return Skeleton(
        family=family,
        components=components,
        parameters=parameters,
        kept=kept_modules(module, components),
        unread_blocks=unread_blocks(config),
    )


def _on_meta(source: str, family: ModelFamily, config: Any) -> nn.Module:
    """The model without weights; InputError where its configuration contradicts itself."""
    with (
        reading(f"Model {source!r}: no model can be built from its configuration"),
        quietly(),  # meta-device init is chatty
        torch.device("meta"),
    ):
        return family.skeleton(config)


def check_weights(source: str, allow_unread: bool = False) -> None:
    """InputError for a folder whose weights do not fit its configuration, before they are loaded.

    Hub models are checked when they are loaded: until then their weights are not here.
    """
    if Path(source).is_dir():
        config = read_config(source)
        module = _on_meta(source, family_of(config), config)
        with reading(f"Model {source!r}: its weights cannot be loaded"):
            check_outline(Path(source), module, allow_unread)


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_model(
    name: str,
    dtype: str = "float32",
    device: str = "cpu",
    known_fingerprint: str | None = None,
    allow_pickle: bool = False,
    allow_unread: bool = False,
) -> LoadedModel:
    """A model from a bundled name, a local folder or a hub name, in eval mode.

    `known_fingerprint` saves hashing all weights again. allow_unread: load a checkpoint that holds
    weights which nothing reads.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r} is not one of {sorted(DTYPES)}")
    source = locate(name, allow_pickle)
    config = read_config(source)
    family = family_of(config)
    check_weights(source, allow_unread)
    # families of before that option need not know it
    options = {"allow_unread": True} if allow_unread else {}
    with reading(f"Model {name!r} cannot be loaded"):
        module, processor = family.load(source, DTYPES[dtype], device, allow_pickle, **options)
    module.eval().requires_grad_(False)
    return LoadedModel(
        module=module,
        processor=processor,
        family=family,
        source=name,
        fingerprint=known_fingerprint or fingerprint(source, config, dtype),
        device=device,
        components=find_components(module, family),
    )
