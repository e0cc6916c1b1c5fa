"""The memory that quantizing needs, from shapes: the most demanding block counts."""

import torch
from torch import nn

from mmq.models.components import Component, Layer
from mmq.quantization.working_memory import TOKENS, working_bytes
from mmq.tensors.matrices import Matrix


def component(*blocks, per_row=False):
    """A component of linear layers with these (outputs, inputs)."""
    layers = [
        Layer(f"{number}.{k}", number, "ff", Matrix(nn.Linear(*shape[::-1], device="meta")))
        for number, shapes in enumerate(blocks)
        for k, shape in enumerate(shapes)
    ]
    return Component("llm", len(blocks), tuple(layers), per_row=per_row)


def test_the_most_demanding_block_counts():
    small, large = ((8, 8),), ((8, 8), (32, 8), (8, 32))
    components = {"vit": component(small), "llm": component(small, large)}
    grams = 4 * (8 * 8 + 8 * 8 + 32 * 32)
    factor = 8 * 32 * 32
    two_layers = 16 * 2 * 8 * 32
    hidden = TOKENS * 8 * 2
    assert working_bytes(components, torch.bfloat16) == grams + factor + two_layers + hidden


def test_tables_need_no_inputs():
    assert working_bytes({"embed": component(((512, 8),), per_row=True)}, torch.float32) == 0
