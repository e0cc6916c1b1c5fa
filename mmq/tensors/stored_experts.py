"""The layout in a checkpoint's files of experts that a model has in one parameter."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class StoredExperts:
    """The tensors in a checkpoint's files that a parameter (experts, rows, columns) is made of.

    stacks: what the rows of an expert are made of, in order, such as gate and up; each is the name
    of one tensor of all experts (`whole`), or one name per expert. transposed: the files have rows
    and columns exchanged.
    """

    stacks: tuple[tuple[str, ...], ...]
    whole: bool
    transposed: bool = False

    def names(self, expert: int) -> tuple[str, ...]:
        """The tensors that hold an expert, in the order of its rows."""
        return tuple(stack[0 if self.whole else expert] for stack in self.stacks)

    def matrix(self, expert: int, read: Callable[[str, int | None], Tensor]) -> Tensor:
        """An expert as it lies in the parameter, (rows, columns).

        read: returns a tensor by its name, or the entry at an index of its first dimension.
        """
        index = expert if self.whole else None
        stored = torch.cat([read(name, index) for name in self.names(expert)])
        return stored.T if self.transposed else stored

    def fill_(self, tensors: Mapping[str, Tensor], expert: int, matrix: Tensor) -> None:
        """Write an expert, as it lies in the parameter, into the files' tensors."""
        stored = matrix.T if self.transposed else matrix
        start = 0
        for name in self.names(expert):
            place = tensors[name][expert] if self.whole else tensors[name]
            place.copy_(stored[start : start + len(place)])
            start += len(place)
