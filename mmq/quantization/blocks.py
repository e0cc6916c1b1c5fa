"""Transformer blocks in sequence: the first one's inputs are captured, the others' computed.

Only one block's inputs are in memory at a time. The first block's come from the model's own
forwards; each block's output, with whatever the model adds to it on the way (as DeepStack does),
is the next one's input. Where that does not hold, every block reads its inputs in forwards of the
whole model, which takes longer.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmq.tensors.matrices import Matrix

Forward = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Block:
    """A transformer block and the weights in it that are quantized, by name.

    twins: blocks elsewhere in the model with the same weights, such as those of a decoder that
    shares its encoder's.
    """

    module: nn.Module
    layers: Mapping[str, Matrix]
    twins: tuple[nn.Module, ...] = ()

    @property
    def shares(self) -> bool:
        """Whether a module outside this block and its twins has one of these weights."""
        inside = {m for block in (self.module, *self.twins) for m in block.modules()}
        holders = (m for matrix in self.layers.values() for m, _ in matrix.twins)
        return any(module not in inside for module in holders)


class EnoughError(Exception):
    """Ends a forward early."""


def hidden_of(output: Any) -> Tensor:
    """The hidden states in what a block returns."""
    if isinstance(output, Mapping):
        output = tuple(output.values())
    while isinstance(output, list | tuple) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else torch.zeros(0)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a block besides its hidden states; name: of these, "" if positional."""

    name: str
    positional: tuple[Any, ...]
    named: Mapping[str, Any]

    @classmethod
    def split(
        cls, module: nn.Module, positional: tuple[Any, ...], named: Mapping[str, Any]
    ) -> tuple[Tensor, "Arguments"]:
        """The hidden states, and the other arguments."""
        if positional:
            return positional[0], cls("", positional[1:], named)
        name = "hidden_states"
        if name not in named:
            order = inspect.signature(type(module).forward).parameters
            name = next(n for n in (*order, *named) if isinstance(named.get(n), Tensor))
        return named[name], cls(name, (), {k: v for k, v in named.items() if k != name})

    def call(self, module: nn.Module, hidden: Tensor) -> Any:
        """Call a block."""
        if self.name:
            return module(**{self.name: hidden}, **self.named)
        return module(hidden, *self.positional, **self.named)


@dataclass(frozen=True, slots=True)
class Added:
    """An addition to some rows of the hidden states before a block, such as image features."""

    rows: Tensor  # bool
    values: Tensor  # (rows, width)

    def to(self, hidden: Tensor) -> Tensor:
        """The hidden states with it."""
        result = hidden.clone()
        result[self.rows] += self.values.to(hidden.dtype)
        return result


@dataclass(slots=True)
class Call:
    """A call of a list of blocks: hidden states (n, tokens, width) that enter the next block.

    arguments: those of each block; one entry if they are the same for all. added: by the number
    of the block that reads it. twin: 0 for the blocks themselves, k for their k-th twins.
    """

    hidden: Tensor
    arguments: list[Arguments] = field(default_factory=list)
    added: dict[int, Added] = field(default_factory=dict)
    twin: int = 0

    def through(self, block: Block, number: int) -> Tensor:
        """The output of block `number` for the hidden states, as the next block reads it."""
        arguments = self.arguments[number if len(self.arguments) > 1 else 0]
        module = block.twins[self.twin - 1] if self.twin else block.module
        output = hidden_of(arguments.call(module, self.hidden))
        added = self.added.get(number + 1)
        return output if added is None else added.to(output)


class Forwards:
    """Forwards by their position. They are made again on every pass, as they hold pictures."""

    def __init__(self, make: Callable[[], Iterable[Forward]]) -> None:
        self._make = make
        self._next = 0
        self._rest: Iterator[Forward] = iter(())

    def __getitem__(self, index: int) -> Forward:
        if index < self._next or self._next == 0:
            self._rest, self._next = iter(self._make()), 0
        while True:
            forward, self._next = next(self._rest), self._next + 1
            if self._next > index:
                return forward


@dataclass(slots=True)
class ReplayedCall(Call):
    """A forward of the whole model, run again for every block.

    once: whether the forward calls each block once, so that it can end after the block.
    """

    forwards: Forwards = field(default_factory=lambda: Forwards(list))
    index: int = 0
    once: bool = False

    def through(self, block: Block, number: int) -> Tensor:
        """The output of a block in the model's forward; empty if it is not called."""
        output = torch.zeros(0)

        def leave(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
            nonlocal output
            output = hidden_of(result)
            if self.once:
                raise EnoughError

        handle = block.module.register_forward_hook(leave)
        try:
            self.forwards[self.index]()
        except EnoughError:
            pass
        finally:
            handle.remove()
        return output


@torch.no_grad()
def advance_(block: Block, calls: Sequence[Call], number: int) -> None:
    """Replace the calls' hidden states with the outputs of block `number`."""
    for call in calls:
        call.hidden = call.through(block, number)
