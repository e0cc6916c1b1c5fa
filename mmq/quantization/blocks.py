"""Transformer blocks in sequence: the first one's inputs are captured, the others' computed.

Only one block's inputs are in memory at a time. The first block's come from the model's own
forwards; each block's output, with whatever the model adds to it on the way (as DeepStack does),
must be the next one's input. The first forward verifies that. Blocks for which it does not hold
are replayed: every block then reads its inputs in forwards of the whole model, which takes longer.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmq.tensors.matrices import Matrix

log = logging.getLogger(__name__)
Forward = Callable[[], object]
TOLERANCE = 1e-2  # relative, of outputs computed block by block; bfloat16 has 8 bits


@dataclass(frozen=True, slots=True)
class Block:
    """A transformer block and the weights in it that are quantized, by name."""

    module: nn.Module
    layers: Mapping[str, Matrix]


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
    """The arguments of a block beside its hidden states; name: of these, "" if positional."""

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
    """What the model adds to some rows of the hidden states before a block."""

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
    of the block that reads it.
    """

    hidden: Tensor
    arguments: list[Arguments] = field(default_factory=list)
    added: dict[int, Added] = field(default_factory=dict)

    def through(self, block: Block, number: int) -> Tensor:
        """The output of block `number` for the hidden states, as the next block reads it."""
        arguments = self.arguments[number if len(self.arguments) > 1 else 0]
        output = hidden_of(arguments.call(block.module, self.hidden))
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
def capture(
    blocks: Sequence[Block], forwards: Callable[[], Iterable[Forward]]
) -> list[Call] | list[ReplayedCall]:
    """Every call of a list of blocks in these forwards, with the first block's inputs.

    forwards: returns the forwards anew each time. If the first forward's blocks all receive the
    same other arguments, later forwards skip the work of the blocks. Nothing after the blocks is
    run.
    """
    calls: list[Call] = []
    outputs: list[Any] | None = None  # what blocks return beside hidden states, to skip them
    for forward in forwards():
        watch = _Watch(blocks, outputs)
        watch.run(forward)
        if not watch.obstacle and watch.calls and not calls:
            watch.obstacle = _difference(blocks, watch)
            if all(len(call.arguments) == 1 for call in watch.calls):
                outputs = watch.extras
        if watch.obstacle:
            log.info("%s: replaying the model's forwards for each block", watch.obstacle)
            return replay(forwards, once=not watch.repeated)
        calls += watch.calls
    return calls


def replay(forwards: Callable[[], Iterable[Forward]], once: bool = False) -> list[ReplayedCall]:
    """The forwards, to be run again for every block."""
    shared = Forwards(forwards)
    none = torch.zeros(0)
    return [
        ReplayedCall(none, forwards=shared, index=k, once=once) for k, _ in enumerate(forwards())
    ]


class _Watch:
    """Records how the model calls a list of blocks in one forward.

    extras: what each block returns after its hidden states, if a tuple; blocks are skipped if it
    is given. obstacle: why the blocks cannot be run one after another, "" if they can.
    """

    def __init__(self, blocks: Sequence[Block], extras: list[Any] | None) -> None:
        self.blocks, self.skip = blocks, extras is not None
        self.extras: list[Any] | None = extras or [None] * len(blocks)
        self.calls: list[Call] = []
        self.last: list[Tensor] = []  # output of the last block, by call
        self.obstacle, self.repeated = "", False
        self._number, self._output = -1, torch.zeros(0)

    def run(self, forward: Forward) -> None:
        """Run a forward; blocks after an obstacle still run, to see how often each is called."""
        handles = []
        for number, block in enumerate(self.blocks):
            enter, leave = self._enter(number), self._leave(number)
            handles.append(block.module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(block.module.register_forward_hook(leave))
        try:
            with _skipped(self.blocks, self.extras or ()) if self.skip else nullcontext():
                forward()
        except EnoughError:
            pass
        finally:
            for handle in handles:
                handle.remove()
        if self.calls and not self.obstacle and not self.last:
            self.obstacle = f"only {self._number + 1} of {len(self.blocks)} blocks are called"
        for call in self.calls:
            if all(_equal(call.arguments[0], each) for each in call.arguments):
                call.arguments = call.arguments[:1]

    def _enter(self, number: int) -> Callable[..., None]:
        def hook(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            if number == 0 and self._number == -1:
                self._number = 0
                hidden, arguments = Arguments.split(module, positional, named)
                self.calls.append(Call(hidden.clone(), [arguments]))
                return
            kind = type(module).__name__
            self.repeated = self.repeated or number <= self._number
            if number != self._number + 1:
                self.obstacle = f"{kind} {number} is not called after the block before it"
            if self.obstacle:
                return
            self._number = number
            hidden, arguments = Arguments.split(module, positional, named)
            self.calls[-1].arguments.append(arguments)
            if _equal(hidden, self._output):
                return
            added = _added(hidden, self._output)
            if added is None:
                self.obstacle = f"{kind} {number} does not read the output of the block before it"
            else:
                self.calls[-1].added[number] = added

        return hook

    def _leave(self, number: int) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            self._output = hidden_of(output)
            if not isinstance(output, Tensor | tuple):
                self.extras = None
            elif self.extras is not None and not self.skip and isinstance(output, tuple):
                self.extras[number] = output[1:]
            if number == len(self.blocks) - 1 and not self.obstacle:
                self.last.append(self._output)
                raise EnoughError

        return hook


def _added(hidden: Tensor, output: Tensor) -> Added | None:
    """What was added to a block's output; None if something else happened to it.

    An injection leaves some rows as they are; a norm or a projection changes all of them.
    """
    if hidden.shape != output.shape or hidden.dim() < 2:
        return None
    rows = (hidden != output).any(-1)
    return None if bool(rows.all()) else Added(rows, (hidden - output)[rows])


def _difference(blocks: Sequence[Block], watch: _Watch) -> str:
    """Why blocks run one after another do not give the model's own outputs; "" if they do."""
    for call, expected in zip(watch.calls, watch.last, strict=True):
        trial = copy(call)
        for number, block in enumerate(blocks):
            trial.hidden = trial.through(block, number)
        outputs, expected = (x.float().nan_to_num() for x in (trial.hidden, expected))
        error = torch.linalg.vector_norm(outputs - expected)
        if not error <= TOLERANCE * torch.linalg.vector_norm(expected):
            return f"{type(blocks[0].module).__name__} does not repeat its outputs"
    return ""


@contextmanager
def _skipped(blocks: Sequence[Block], extras: Sequence[Any]) -> Iterator[None]:
    """Blocks return what they read, in the form of their outputs, without computing anything."""

    def skip(module: nn.Module, extra: Any) -> Callable[..., Any]:
        def forward(*positional: Any, **named: Any) -> Any:
            hidden, _ = Arguments.split(module, positional, named)
            return hidden if extra is None else (hidden, *extra)

        return forward

    own = [block.module.__dict__.get("forward") for block in blocks]
    for block, extra in zip(blocks, extras, strict=True):
        block.module.__dict__["forward"] = skip(block.module, extra)
    try:
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            if forward is None:
                del block.module.__dict__["forward"]
            else:
                block.module.__dict__["forward"] = forward


def _equal(one: Any, other: Any) -> bool:
    """Whether two arguments are equal, tensors by value."""
    if one is other:
        return True
    if isinstance(one, Arguments) and isinstance(other, Arguments):
        pairs = ((one.name, other.name), (one.positional, other.positional))
        return all(_equal(*pair) for pair in (*pairs, (one.named, other.named)))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and bool(one == other)


@torch.no_grad()
def advance_(block: Block, calls: Sequence[Call], number: int) -> None:
    """Replace the calls' hidden states with the outputs of block `number`."""
    for call in calls:
        call.hidden = call.through(block, number)
