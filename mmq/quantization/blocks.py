"""Transformer blocks in sequence: the first one's inputs are captured, the others' computed.

Only one block's inputs are in memory at a time. The first block's come from the model's own
forwards; each block's output must be the next one's input, which the first forward verifies.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmq.errors import InputError
from mmq.tensors.layer_inputs import LayerInputs

Rest = tuple[tuple[Any, ...], dict[str, Any]]  # a block's other arguments
Groups = dict[frozenset[str], LayerInputs]  # layers that read the same tensors, by name


@dataclass(frozen=True, slots=True)
class Block:
    """A transformer block and the linear layers in it that are quantized, by name."""

    module: nn.Module
    layers: Mapping[str, nn.Linear]


@dataclass(slots=True)
class Call:
    """A call of a list of blocks: hidden states (n, tokens, width) before the next block.

    rest: the other arguments of each block; one entry if they are the same for all.
    """

    hidden: Tensor
    rest: list[Rest]

    def through(self, block: Block, number: int) -> Tensor:
        """The output of block `number` for the hidden states."""
        positional, named = self.rest[number if len(self.rest) > 1 else 0]
        return _hidden_of(block.module(self.hidden, *positional, **named))


class _EnoughError(Exception):
    """Ends a forward early."""


def _hidden_of(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _split(positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[Tensor, Rest]:
    """The hidden states and the rest of a block's arguments."""
    if positional:
        return positional[0], (positional[1:], named)
    rest = dict(named)
    return rest.pop("hidden_states"), ((), rest)


@torch.no_grad()
def capture(blocks: Sequence[Block], forwards: Iterable[Callable[[], object]]) -> list[Call]:
    """Every call of a list of blocks in these forwards, with the first block's inputs.

    Forwards run through all blocks until all are known to receive the same other arguments; from
    then on they end at the first block. Nothing after the blocks is run.
    """
    calls: list[Call] = []
    same: bool | None = None
    for forward in forwards:
        captured = _watch(blocks, forward, stop_at=0 if same else len(blocks) - 1)
        if captured and not same:
            equal = all(_equal(call.rest[0], rest) for call in captured for rest in call.rest)
            same = equal if same is None else same and equal
        if same:
            for call in captured:
                call.rest = call.rest[:1]
        calls += captured
    return calls


def _watch(blocks: Sequence[Block], forward: Callable[[], object], stop_at: int) -> list[Call]:
    """The calls in one forward, which ends when block `stop_at` is entered."""
    calls: list[Call] = []
    last_output: list[Tensor] = []

    def enter(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            hidden, rest = _split(positional, named)
            if number == 0:
                calls.append(Call(hidden.clone(), []))
            elif not _equal(hidden, last_output[0]):
                raise InputError(
                    f"{type(module).__name__} {number} does not read the output of the block "
                    f"before it, so its inputs cannot be computed block by block. A calibrated "
                    f"quantizer cannot quantize this component; choose rtn or uniform."
                )
            calls[-1].rest.append(rest)
            if number == stop_at:
                raise _EnoughError

        return hook

    def leave(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        last_output[:] = [_hidden_of(output)]

    handles = []
    for number, block in enumerate(blocks):
        handles.append(block.module.register_forward_pre_hook(enter(number), with_kwargs=True))
        handles.append(block.module.register_forward_hook(leave))
    try:
        forward()
    except _EnoughError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _equal(one: Any, other: Any) -> bool:
    """Whether two arguments are equal, tensors by value."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and bool(one == other)


@contextmanager
def _listening(layers: Mapping[str, nn.Linear]) -> Iterator[list[tuple[str, Tensor]]]:
    """A list that fills with (layer, input) while the layers are called."""
    inputs_read: list[tuple[str, Tensor]] = []

    def listen(name: str) -> Callable[..., None]:
        return lambda module, arguments: inputs_read.append((name, arguments[0]))

    handles = [layer.register_forward_pre_hook(listen(name)) for name, layer in layers.items()]
    try:
        yield inputs_read
    finally:
        for handle in handles:
            handle.remove()


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
        with _listening(layers) as inputs_read:
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
    return groups


@torch.no_grad()
def reading_order(block: Block, calls: Sequence[Call], number: int) -> list[frozenset[str]]:
    """A block's layers in the order of their calls; layers that read the same tensors in all
    calls form one set.
    """
    positions: dict[str, list[tuple[int, int]]] = {}
    for k, call in enumerate(calls):
        with _listening(block.layers) as inputs_read:
            call.through(block, number)
        tensors: list[Tensor] = []
        for name, tensor in inputs_read:
            place = next((i for i, t in enumerate(tensors) if t is tensor), len(tensors))
            tensors += [tensor] if place == len(tensors) else []
            positions.setdefault(name, []).append((k, place))
    sets: dict[tuple[tuple[int, int], ...], list[str]] = {}
    for name, places in positions.items():
        sets.setdefault(tuple(places), []).append(name)
    return [frozenset(names) for names in sets.values()]


@torch.no_grad()
def advance_(block: Block, calls: Sequence[Call], number: int) -> None:
    """Replace the calls' hidden states with the outputs of block `number`."""
    for call in calls:
        call.hidden = call.through(block, number)
