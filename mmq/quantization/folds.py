"""Find what can take a layer's input scale, by trying it on the block, bit for bit.

Layers that divide what they read by a scale may have it divided out of what computes their inputs
instead: a norm that multiplies by its weight, or the rows of a linear layer, such as up for down,
fc1 for fc2 after a ReLU, or v for o in attention whose heads are not shared. A scale of powers of
two then changes no bit of what the block computes, so one call with scales decides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmq.quantization.blocks import Block, Call
from mmq.tensors.layer_inputs import LayerInputs
from mmq.tensors.quantized_weight import QuantizedLayer, QuantizedWeight

Handle = torch.utils.hooks.RemovableHandle


class _Trace:
    """The tensor that each layer reads in one call, and the norm that computed it."""

    def __init__(self) -> None:
        self.readers: dict[int, set[str]] = {}  # by the tensor's id, in the order of the calls
        self.norms: dict[int, str] = {}
        self._alive: list[Tensor] = []  # else another tensor may get the same id

    def listen(self, block: Block) -> list[Handle]:
        """Hooks that record a block's calls."""
        handles: list[Handle] = [
            matrix.module.register_forward_pre_hook(self._reader(name))
            for name, matrix in block.layers.items()
            if matrix.expert is None
        ]
        handles += [
            module.register_forward_hook(self._output(name))
            for name, module in block.module.named_modules()
            if _is_norm(module)
        ]
        return handles

    def _reader(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._alive.append(args[0])
            self.readers.setdefault(id(args[0]), set()).add(name)

        return hook

    def _output(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            self._alive.append(output)
            self.norms[id(output)] = name

        return hook


@torch.no_grad()
def find_folds(block: Block, calls: Sequence[Call], number: int) -> dict[str, str]:
    """For each layer whose input scale can be folded, the module in the block that takes it.

    None in a block with shared weights: whatever else has them reads unscaled inputs.
    """
    if not calls or any(matrix.twins for matrix in block.layers.values()):
        return {}
    call, trace = calls[0], _Trace()
    handles = trace.listen(block)
    try:
        expected = call.through(block, number)
    finally:
        for handle in handles:
            handle.remove()

    def takes(source: str, names: set[str]) -> bool:
        with _scaled(block, source, names):
            return torch.equal(call.through(block, number), expected)

    folds: dict[str, str] = {}
    for tensor, names in trace.readers.items():
        norm = trace.norms.get(tensor)
        sources = [norm] if norm else _linears_before(block, trace, tensor)
        source = next((source for source in sources if takes(source, names)), "")
        folds |= dict.fromkeys(names, source) if source else {}
    return folds


def _linears_before(block: Block, trace: _Trace, tensor: int) -> list[str]:
    """Linear layers whose outputs may become this tensor, the latest first, by path in the block.

    They have an output per input of its readers, and read their own inputs before.
    """
    paths = {module: path for path, module in block.module.named_modules()}
    width = block.layers[next(iter(trace.readers[tensor]))].shape[1]
    order = list(trace.readers)
    called_before = [name for key in order[: order.index(tensor)] for name in trace.readers[key]]
    return [
        paths[block.layers[name].module]
        for name in sorted(called_before, key=list(block.layers).index, reverse=True)
        if block.layers[name].shape[0] == width and block.layers[name].module in paths
    ]


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return "Norm" in type(module).__name__ and isinstance(weight, Tensor) and weight.dim() == 1


@contextmanager
def _scaled(block: Block, source: str, names: set[str]) -> Iterator[None]:
    """Multiply these layers by the scale 2, 1/2, 2, ..., and divide what precedes them by it."""
    module: Any = block.module.get_submodule(source)
    tensors: list[Tensor] = [
        t for t in (module.weight, getattr(module, "bias", None)) if t is not None
    ]
    weights = {name: block.layers[name].weight.clone() for name in names}
    originals = [t.detach().clone() for t in tensors]
    scale = torch.full_like(module.weight[..., 0] if module.weight.dim() > 1 else module.weight, 2)
    scale[1::2] = 0.5
    try:
        for tensor in tensors:
            tensor.div_(scale if tensor.dim() == 1 else scale[:, None])
        for name, weight in weights.items():
            block.layers[name].copy_(weight * scale.to(weight.device))
        yield
    finally:
        for tensor, original in zip(tensors, originals, strict=True):
            tensor.copy_(original)
        for name, weight in weights.items():
            block.layers[name].copy_(weight)


@dataclass(frozen=True, slots=True)
class Folds:
    """The modules of a block that take input scales, by the layers that read their outputs.

    earlier: the block's layers that were solved in earlier calls, by width.
    """

    sources: Mapping[str, str]
    block: Block
    earlier: Mapping[int, Mapping[str, QuantizedLayer]] = field(default_factory=dict)

    def prepare_(
        self,
        inputs: LayerInputs,
        names: Sequence[str],
        solved: Mapping[int, Mapping[str, QuantizedLayer]],
    ) -> str:
        """Set whether and how far these inputs can be scaled; returns the module that takes it.

        names: layers that are solved together; a scale is shared only if these are all readers.
        solved: those that were solved just now. A linear layer takes a scale once it is solved.
        """
        source = self.sources.get(names[0], "")
        readers = {name for name, other in self.sources.items() if other == source}
        inputs.foldable = bool(source) and set(names) == readers
        inputs.fold_limits = {}
        module = self.block.module.get_submodule(source) if inputs.foldable else None
        if isinstance(module, nn.Linear):
            own = next(name for name, layer in self.block.layers.items() if layer.module is module)
            by_width = {b: {**self.earlier.get(b, {}), **layers} for b, layers in solved.items()}
            inputs.foldable = all(own in layers for layers in by_width.values())
            if inputs.foldable:
                inputs.fold_limits = {
                    bits: exponent_limit(layers[own].weight) for bits, layers in by_width.items()
                }
        return source


def exponent_limit(weight: QuantizedWeight) -> Tensor:
    """The largest exponent (out,) by which the scales of each row can be divided exactly.

    Beyond it, some scale would be smaller than the normal numbers of its dtype.
    """
    smallest = weight.scale.float().amin(1).expand(len(weight.codes))
    return (smallest / torch.finfo(weight.scale.dtype).tiny).log2().floor()
