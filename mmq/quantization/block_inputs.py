"""The inputs of a block's layers, as sums over them; each expert has its own tokens."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmq.errors import InputError
from mmq.quantization.blocks import Block, Call
from mmq.quantization.expert_inputs import ExpertInputs
from mmq.tensors.layer_inputs import LayerInputs
from mmq.tensors.matrices import Matrix

Groups = dict[frozenset[str], LayerInputs]  # layers that read the same tensors, by name
Listen = Callable[[str, Tensor], None]


@contextmanager
def listening(layers: Mapping[str, Matrix]) -> Iterator[list[tuple[str, Tensor]]]:
    """A list that fills with (layer, input) while the layers are called."""
    inputs_read: list[tuple[str, Tensor]] = []

    def listen(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, positional: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            inputs_read.append((name, positional[0] if positional else keywords["input"]))

        return hook

    with ExitStack() as stack:
        for name, matrix in layers.items():
            if matrix.expert is not None:
                continue
            for module in (matrix.module, *(twin for twin, _ in matrix.twins)):
                handle = module.register_forward_pre_hook(listen(name), with_kwargs=True)
                stack.callback(handle.remove)
        experts = {name: m for name, m in layers.items() if m.expert is not None}
        if experts:
            stack.enter_context(
                ExpertInputs(experts, lambda name, rows: inputs_read.append((name, rows)))
            )
        yield inputs_read


@torch.no_grad()
def read(
    block: Block,
    calls: Sequence[Call],
    number: int,
    max_rows: int = 0,
    only: frozenset[str] | None = None,
    advance: bool = False,
) -> Groups:
    """The inputs of the layers of block `number` in these calls, in the order they are called.

    Layers that read one tensor share its sums. max_rows: see `LayerInputs`. only: some of the
    layers. advance: replace the calls' hidden states with the block's outputs.
    """
    layers = {name: m for name, m in block.layers.items() if only is None or name in only}
    groups: Groups = {}
    for call in calls:
        with listening(layers) as inputs_read:
            hidden = call.through(block, number)
        readers: dict[int, list[str]] = {}
        tensors = {id(tensor): tensor for _, tensor in inputs_read}
        for name, tensor in inputs_read:
            readers.setdefault(id(tensor), []).append(name)
        for key, names in readers.items():
            group, tensor = frozenset(names), tensors[key]
            if group not in groups:
                groups[group] = LayerInputs(tensor.shape[-1], tensor.device, max_rows)
            groups[group].update_(tensor)
        if advance:
            call.hidden = hidden
    check_experts(layers, frozenset().union(*groups))
    return groups


def check_experts(layers: Mapping[str, Matrix], reached: Collection[str]) -> None:
    """InputError if no expert of a module read anything, while other layers did.

    reached: the names of the layers that read something.
    """
    modules = {id(m.module): m.module for m in layers.values() if m.expert is not None}
    for key, module in modules.items():
        names = {n for n, m in layers.items() if id(m.module) == key}
        if reached and names.isdisjoint(reached):
            raise InputError(
                f"{type(module).__name__} multiplies by its experts in a way that calibration "
                f"does not recognize; choose rtn or uniform"
            )


@torch.no_grad()
def reading_order(block: Block, calls: Sequence[Call], number: int) -> list[frozenset[str]]:
    """A block's layers in the order of their calls; layers that read the same tensors in all
    calls form one set, and so do all experts of one parameter.
    """
    positions: dict[str, list[tuple[int, int]]] = {}
    for k, call in enumerate(calls):
        with listening(block.layers) as inputs_read:
            call.through(block, number)
        tensors: list[Tensor] = []
        for name, tensor in inputs_read:
            place = next((i for i, t in enumerate(tensors) if t is tensor), len(tensors))
            tensors += [tensor] if place == len(tensors) else []
            positions.setdefault(name, []).append((k, place))
    sets: dict[Any, list[str]] = {}
    for name, places in positions.items():
        matrix = block.layers[name]
        key = tuple(places) if matrix.expert is None else (id(matrix.module), matrix.key)
        sets.setdefault(key, []).append(name)
    return [frozenset(names) for names in sets.values()]
