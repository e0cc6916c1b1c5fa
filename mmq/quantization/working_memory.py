"""The memory that quantizing a block needs, from shapes alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from mmq.models.components import Component, Layer
from mmq.quantization.sequential import experts_limit

GRAM, FACTOR = 4, 8  # bytes per entry of a Gram matrix and, for the largest, of its factor
SOLVED = 16  # bytes per weight that is solved: in float32, codes and dequantized
TOGETHER = 2  # layers that are solved together, such as gate and up
TOKENS = 2**17  # calibration tokens whose hidden states are in memory, e.g. 128 of 1,024


def working_bytes(components: Mapping[str, Component], dtype: torch.dtype) -> int:
    """Memory that quantizing the most demanding block needs beside the weights, about.

    The Gram matrices of its layers' inputs, the factor of the largest one, its largest layers in
    float32 with their codes, and the hidden states of all calibration tokens.
    """
    blocks: dict[tuple[str, int], list[Layer]] = defaultdict(list)
    for name, component in components.items():
        for layer in component.layers if not component.per_row else ():
            blocks[name, layer.block].append(layer)
    return max((_block_bytes(layers, dtype) for layers in blocks.values()), default=0)


def _block_bytes(layers: Sequence[Layer], dtype: torch.dtype) -> int:
    widths = [layer.shape[1] for layer in layers if layer.matrix.expert is None]
    of_experts = [layer.shape[1] for layer in layers if layer.matrix.expert is not None]
    sums = GRAM * sum(width**2 for width in widths)
    sums += min(GRAM * sum(width**2 for width in of_experts), experts_limit())
    largest = sorted((layer.weights for layer in layers), reverse=True)[:TOGETHER]
    factor = FACTOR * max(layer.shape[1] for layer in layers) ** 2
    hidden = TOKENS * min(layer.shape[1] for layer in layers) * dtype.itemsize
    return sums + factor + SOLVED * sum(largest) + hidden
