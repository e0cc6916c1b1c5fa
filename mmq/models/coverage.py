"""The share of every architecture of transformers that can be quantized, from configurations."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmq.errors import InputError
from mmq.models.checkpoint_errors import reading
from mmq.models.components import Component, count_parameters, find_components
from mmq.models.coverage_configs import example
from mmq.models.skeleton import family_of
from mmq.models.transformers_loading import quietly
from mmq.models.unquantized import unquantized_modules

ENOUGH = 0.95  # share of the weights in blocks; less needs a reason
SHOWN = 0.05  # share of all parameters from which a module at 16 bits is listed


@dataclass(frozen=True, slots=True)
class Coverage:
    """The quantizable weights of an architecture.

    components: name and number of blocks. blocks: share of the weights in blocks, norms and biases
    left out, that can be quantized. model: share of all parameters. left: the largest modules that
    stay at 16 bits. reason: why the architecture, or much of its blocks, cannot be quantized.
    """

    architecture: str
    model_type: str
    family: str = ""
    components: tuple[tuple[str, int], ...] = ()
    blocks: float = 0.0
    model: float = 0.0
    left: str = ""
    reason: str = ""

    @property
    def is_covered(self) -> bool:
        """Whether enough can be quantized, or there is a reason."""
        return self.blocks >= ENOUGH or bool(self.reason)


def architectures() -> list[tuple[Any, str]]:
    """The configuration class and the model class's name of every image-text-to-text model."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as MAPPING

    names: list[tuple[Any, str]] = []
    for config in list(MAPPING.keys()):
        model = MAPPING[config]
        names.append((config, (model[0] if isinstance(model, tuple) else model).__name__))
    return sorted(names, key=lambda pair: (pair[1], pair[0].__name__))


def check_all() -> Iterator[Coverage]:
    """The coverage of every image-text-to-text architecture of the installed transformers."""
    for config, name in architectures():
        yield check(config, name)


def check(config_class: Any, name: str) -> Coverage:
    """The coverage of one architecture."""
    model_type = str(config_class.model_type)
    try:
        with reading(f"{name}: its example configuration cannot be built"):
            config = example(config_class)
        config.architectures = [name]
        return measure(config)
    except InputError as error:
        return Coverage(name, model_type, reason=str(error))


def measure(config: Any) -> Coverage:
    """The coverage of a configuration; InputError if no model can be built from it."""
    family = family_of(config)
    name = config.architectures[0]
    with reading(f"{name} cannot be built"), quietly(), torch.device("meta"):
        root = family.skeleton(config)
    components = find_components(root, family)
    layers = [layer for component in components.values() for layer in component.layers]
    quantizable = sum(layer.weights for layer in layers)
    in_blocks = sum(p.numel() for _, _, p in _in_blocks(root, components))
    parameters = count_parameters(root)
    if quantizable > min(in_blocks, parameters):
        raise AssertionError(f"{name}: some weights are counted twice")
    return Coverage(
        architecture=name,
        model_type=str(config.model_type),
        family=type(family).__name__,
        components=tuple((part, component.blocks) for part, component in components.items()),
        blocks=quantizable / in_blocks,
        model=quantizable / parameters,
        left=", ".join(
            f"{module.name} ({module.weights / parameters:.0%})"
            for module in unquantized_modules(root, components)
            if module.weights > SHOWN * parameters
        ),
        reason="" if quantizable >= ENOUGH * in_blocks else _others(root, components),
    )


def _in_blocks(
    root: nn.Module, components: Mapping[str, Component]
) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Every parameter in blocks but vectors, once, with its module and its name there."""
    result: dict[int, tuple[nn.Module, str, nn.Parameter]] = {}
    for path in (path for component in components.values() for path in component.paths):
        for module in root.get_submodule(path).modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.dim() > 1:
                    result.setdefault(id(parameter), (module, name, parameter))
    return list(result.values())


def _others(root: nn.Module, components: Mapping[str, Component]) -> str:
    """The weights in blocks that cannot be quantized, by their modules' classes."""
    layers = {id(x.matrix.parameter) for c in components.values() for x in c.layers}
    counts: dict[str, int] = defaultdict(int)
    for module, name, parameter in _in_blocks(root, components):
        if id(parameter) not in layers:
            counts[f"{type(module).__name__}.{name}"] += parameter.numel()
    largest = sorted(counts.items(), key=lambda pair: -pair[1])[:3]
    return "neither linear layers nor experts: " + ", ".join(
        f"{name} ({count:,} weights)" for name, count in largest
    )
