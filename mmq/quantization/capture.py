"""A model's calls of a list of blocks: the first one's inputs, and the steps between them.

The first forward verifies that each block reads the output of the one before it, with whatever the
model adds on the way, and that blocks run one after another repeat the model's outputs. Blocks for
which it does not hold are replayed: see `ReplayedCall`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmq.quantization.blocks import (
    Added,
    Arguments,
    Block,
    Call,
    EnoughError,
    Forward,
    Forwards,
    ReplayedCall,
    hidden_of,
)
from mmq.system.memory import shortage

log = logging.getLogger(__name__)
TOLERANCE = 1e-2  # relative, of outputs computed block by block; bfloat16 has 8 bits


def capture(
    blocks: Sequence[Block], forwards: Callable[[], Iterable[Forward]]
) -> list[Call] | list[ReplayedCall]:
    """Every call of a list of blocks and of their twins, with the first block's inputs.

    forwards: returns the forwards anew each time. Blocks that share weights with modules outside
    their twins are replayed, as the inputs of all modules count.
    """
    if any(block.shares for block in blocks):
        log.info("Blocks share weights with other modules: replaying the model's forwards")
        return replay(forwards)
    calls = _capture(blocks, forwards)
    for number in range(len(blocks[0].twins)):
        twins = [Block(block.twins[number], block.layers) for block in blocks]
        others = _capture(twins, forwards)
        if any(isinstance(call, ReplayedCall) for call in (*calls, *others)):
            return replay(forwards)
        calls = [*calls, *(replace(call, twin=number + 1) for call in others)]
    return calls


@torch.no_grad()
def _capture(
    blocks: Sequence[Block], forwards: Callable[[], Iterable[Forward]]
) -> list[Call] | list[ReplayedCall]:
    """Every call of a list of blocks in these forwards, with the first block's inputs.

    If the first forward's blocks all receive the same other arguments, later forwards skip the
    work of the blocks. Nothing after the blocks is run.
    """
    calls: list[Call] = []
    outputs: list[Any] | None = None  # what blocks return besides hidden states, to skip them
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
            if all(_equal(call.arguments[0], other) for other in call.arguments):
                call.arguments = call.arguments[:1]

    def _enter(self, number: int) -> Callable[..., None]:
        def hook(module: nn.Module, positional: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if number == 0 and self._number == -1:
                self._number = 0
                hidden, arguments = Arguments.split(module, positional, keywords)
                self.calls.append(Call(hidden.clone(), [arguments]))
                return
            kind = type(module).__name__
            self.repeated = self.repeated or number <= self._number
            if number != self._number + 1:
                self.obstacle = f"{kind} {number} is not called after the block before it"
            if self.obstacle:
                return
            self._number = number
            hidden, arguments = Arguments.split(module, positional, keywords)
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
    """The addition to a block's output; None if it changed in another way.

    An injection leaves some rows as they are; a norm or a projection changes all of them.
    """
    if hidden.shape != output.shape or hidden.dim() < 2:
        return None
    rows = (hidden != output).any(-1)
    return None if bool(rows.all()) else Added(rows, (hidden - output)[rows])


def _difference(blocks: Sequence[Block], watch: _Watch) -> str:
    """Why blocks run one after another do not give the model's own outputs; "" if they do."""
    kind = type(blocks[0].module).__name__
    for call, expected in zip(watch.calls, watch.last, strict=True):
        trial = copy(call)
        try:
            for number, block in enumerate(blocks):
                trial.hidden = trial.through(block, number)
        except (RuntimeError, ValueError, TypeError, IndexError) as problem:  # its cache has grown
            if shortage(problem) is not None:
                raise
            log.debug("%s cannot be run again", kind, exc_info=True)
            return f"{kind} cannot be run again"
        outputs, expected = (x.float().nan_to_num() for x in (trial.hidden, expected))
        error = torch.linalg.vector_norm(outputs - expected)
        if not error <= TOLERANCE * torch.linalg.vector_norm(expected):
            return f"{kind} does not repeat its outputs"
    return ""


@contextmanager
def _skipped(blocks: Sequence[Block], extras: Sequence[Any]) -> Iterator[None]:
    """Blocks return what they read, in the form of their outputs, without computing anything."""

    def skip(module: nn.Module, extra: Any) -> Callable[..., Any]:
        def forward(*positional: Any, **keywords: Any) -> Any:
            hidden, _ = Arguments.split(module, positional, keywords)
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
