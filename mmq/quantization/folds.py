"""Which norm a layer's input scale can be folded into: tried, bit for bit, on the block itself.

A scale s by which layers divide what they read can be divided out of the norm before them instead,
if nobody else reads that norm and it multiplies by its weight. With powers of two that changes no
bit of what the block computes, so that one call shows whether it holds.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmq.quantization.blocks import Block, Call


@torch.no_grad()
def norms_before(block: Block, calls: Sequence[Call], number: int) -> dict[str, str]:
    """The norm's name in the block, by the name of each layer whose input scale it can take."""
    if not calls:
        return {}
    call = calls[0]
    readers: dict[int, set[str]] = {}
    outputs: dict[int, str] = {}
    kept: list[Tensor] = []  # so that no tensor takes the place of another
    handles = [
        layer.register_forward_pre_hook(_record_reader(name, readers, kept))
        for name, layer in block.layers.items()
    ]
    handles += [
        module.register_forward_hook(_record_output(name, outputs, kept))
        for name, module in block.module.named_modules()
        if _is_norm(module)
    ]
    try:
        expected = call.through(block, number)
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, str] = {}
    for tensor, norm in outputs.items():
        names = readers.get(tensor, set())
        if names:
            with _folded(block, norm, names):
                same = torch.equal(call.through(block, number), expected)
            found |= dict.fromkeys(names, norm) if same else {}
    return found


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return "Norm" in type(module).__name__ and isinstance(weight, Tensor) and weight.dim() == 1


def _record_reader(
    name: str, readers: dict[int, set[str]], kept: list[Tensor]
) -> Callable[..., None]:
    def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        kept.append(given[0])
        readers.setdefault(id(given[0]), set()).add(name)

    return hook


def _record_output(name: str, outputs: dict[int, str], kept: list[Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append(output)
        outputs[id(output)] = name

    return hook


@contextmanager
def _folded(block: Block, norm: str, names: set[str]) -> Iterator[None]:
    """The block with a scale of 2, 1/2, 2, ... in these layers, and divided out of the norm."""
    module: Any = block.module.get_submodule(norm)
    tensors: list[Tensor] = [
        t for t in (module.weight, getattr(module, "bias", None)) if t is not None
    ]
    weights = [block.layers[name].weight for name in names]
    originals = [t.detach().clone() for t in (*tensors, *weights)]
    scale = torch.full_like(tensors[0], 2.0)
    scale[1::2] = 0.5
    try:
        for tensor in tensors:
            tensor.div_(scale)
        for weight in weights:
            weight.mul_(scale)
        yield
    finally:
        for tensor, original in zip((*tensors, *weights), originals, strict=True):
            tensor.copy_(original)
