"""A component's transformer blocks, with the layers that are quantized."""

from collections import defaultdict

from torch import nn

from mmq.models.components import Component
from mmq.models.loading import LoadedModel
from mmq.quantization.blocks import Block
from mmq.tensors.matrices import Matrix


def component_blocks(model: LoadedModel, component: Component) -> list[list[Block]]:
    """A component's lists of blocks, each with its linear layers by their names in the model."""
    of_block: dict[int, dict[str, Matrix]] = defaultdict(dict)
    for layer in component.layers:
        of_block[layer.block][layer.name] = layer.matrix
    lists: list[list[Block]] = []
    first = 0
    for path in component.paths:
        module = model.module.get_submodule(path)
        members = list(module.children()) if isinstance(module, nn.ModuleList) else [module]
        twins = [
            list(model.module.get_submodule(t).children()) for p, t in component.twins if p == path
        ]
        lists.append(
            [
                Block(m, of_block[first + k], tuple(of_list[k] for of_list in twins))
                for k, m in enumerate(members)
            ]
        )
        first += len(members)
    return lists
