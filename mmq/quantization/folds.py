"""Which norm can take a layer's input scale: tried on the block itself, bit for bit.

Layers that divide what they read by a scale may have it divided out of the norm before them
instead, if nothing else reads that norm and it multiplies by its weight. Powers of two then change
no bit of what the block computes, so one call with scales decides.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmq.quantization.blocks import Block, Call


@torch.no_grad()
def norms_before(block: Block, calls: Sequence[Call], number: int) -> dict[str, str]:
    """For each layer whose input scale can be folded, the name of the norm that takes it."""
    if not calls:
        return {}
    call = calls[0]
    readers: dict[int, set[str]] = {}
    outputs: dict[int, str] = {}
    alive: list[Tensor] = []  # else another tensor may get the same id
    handles = [
        matrix.module.register_forward_pre_hook(_record_reader(name, readers, alive))
        for name, matrix in block.layers.items()
        if matrix.expert is None
    ]
    handles += [
        module.register_forward_hook(_record_output(name, outputs, alive))
        for name, module in block.module.named_modules()
        if _is_norm(module)
    ]
    try:
        expected = call.through(block, number)
    finally:
        for handle in handles:
            handle.remove()
    folds: dict[str, str] = {}
    for tensor, norm in outputs.items():
        names = readers.get(tensor, set())
        if names:
            with _scaled(block, norm, names):
                same = torch.equal(call.through(block, number), expected)
            folds |= dict.fromkeys(names, norm) if same else {}
    return folds


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return "Norm" in type(module).__name__ and isinstance(weight, Tensor) and weight.dim() == 1


def _record_reader(
    name: str, readers: dict[int, set[str]], alive: list[Tensor]
) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        alive.append(args[0])
        readers.setdefault(id(args[0]), set()).add(name)

    return hook


def _record_output(name: str, outputs: dict[int, str], alive: list[Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        alive.append(output)
        outputs[id(output)] = name

    return hook


@contextmanager
def _scaled(block: Block, norm: str, names: set[str]) -> Iterator[None]:
    """Multiply these layers by the scale 2, 1/2, 2, ..., and divide the norm by it."""
    module: Any = block.module.get_submodule(norm)
    tensors: list[Tensor] = [
        t for t in (module.weight, getattr(module, "bias", None)) if t is not None
    ]
    weights = {name: block.layers[name].weight.clone() for name in names}
    originals = [t.detach().clone() for t in tensors]
    scale = torch.full_like(tensors[0], 2.0)
    scale[1::2] = 0.5
    try:
        for tensor in tensors:
            tensor.div_(scale)
        for name, weight in weights.items():
            block.layers[name].copy_(weight * scale.to(weight.device))
        yield
    finally:
        for tensor, original in zip(tensors, originals, strict=True):
            tensor.copy_(original)
        for name, weight in weights.items():
            block.layers[name].copy_(weight)
