"""The weights of a module as matrices (out, in): linear layers, and the experts of 3-D parameters.

A mixture of experts keeps its experts in one parameter, (experts, out, in) or (experts, in, out).
Each expert is a matrix of its own here, so that everything that handles the weight of a linear
layer handles it too.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mmq.tensors.offloaded import read_parameter, write_parameter_

EXPERTS = "experts"  # in the names of modules that hold experts
ROUTERS = ("gate", "router", "shared_expert_gate")  # linear layers that select the experts
Identity = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight (out, in) inside a module.

    key: the name of its parameter. expert: its index in a 3-D parameter. transposed: it is stored
    as (in, out). twins: other modules with the same parameter, and its name there.
    """

    module: nn.Module
    key: str = "weight"
    expert: int | None = None
    transposed: bool = False
    twins: tuple[tuple[nn.Module, str], ...] = ()

    @property
    def parameter(self) -> Tensor:
        """The parameter that holds it."""
        parameter: Tensor = getattr(self.module, self.key)
        return parameter

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        rows, columns = self.parameter.shape[-2:]
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def identity(self) -> Identity:
        """Equal for matrices that share their memory: tied weights."""
        return id(self.parameter), self.expert

    @property
    def weight(self) -> Tensor:
        """The weight (out, in), to read; a view of the parameter unless that is on disk."""
        stored = read_parameter(self.module, self.key, self.expert)
        return stored.T if self.transposed else stored

    @torch.no_grad()
    def copy_(self, weight: Tensor) -> None:
        """Replace the weight (out, in), in the parameter's dtype, in all modules that have it."""
        stored = weight.T if self.transposed else weight
        write_parameter_(self.module, self.key, stored, self.expert)
        if self.parameter.is_meta:  # offloaded: every twin has a copy of its own
            for module, key in self.twins:
                write_parameter_(module, key, stored, self.expert)


def holders(root: nn.Module) -> dict[int, list[tuple[str, nn.Module, str]]]:
    """The modules that hold each parameter, by its id: path, module, and its name there."""
    by_parameter: dict[int, list[tuple[str, nn.Module, str]]] = defaultdict(list)
    for path, module in root.named_modules(remove_duplicate=False):
        for key, parameter in module._parameters.items():
            if parameter is not None:
                by_parameter[id(parameter)].append((path, module, key))
    return by_parameter


def with_twins(
    matrix: Matrix, by_parameter: Mapping[int, Sequence[tuple[str, nn.Module, str]]]
) -> Matrix:
    """A matrix with its twins. by_parameter: see `holders`."""
    others = {
        id(module): (module, key)
        for _, module, key in by_parameter[id(matrix.parameter)]
        if module is not matrix.module
    }
    return replace(matrix, twins=tuple(others.values())) if others else matrix


def matrices(root: nn.Module) -> Iterator[tuple[str, Matrix]]:
    """The matrices in a module, by name, in the order of its modules; routers are left out."""
    holders: set[str] = set()  # modules with a child that holds experts
    for path, _ in root.named_modules():
        parent, _, name = path.rpartition(".")
        if EXPERTS in name:
            holders.add(parent)
    for path, module in root.named_modules():
        parent, _, name = path.rpartition(".")
        if isinstance(module, nn.Linear):
            is_router = name in ROUTERS and parent in holders
            if not is_router and is_plain(module) and "weight" in module._parameters:
                yield path, Matrix(module)
        else:
            for key, matrix in experts(module):
                yield f"{path}.{key}".lstrip("."), matrix


def is_plain(linear: nn.Linear) -> bool:
    """Whether a linear layer does nothing but multiply by its weight and add its bias."""
    return type(linear).forward is nn.Linear.forward


def experts(module: nn.Module) -> Iterator[tuple[str, Matrix]]:
    """The experts in a module's own 3-D parameters, by parameter and index."""
    stacks = {
        key: parameter
        for key, parameter in module.named_parameters(recurse=False)
        if parameter.dim() == 3 and parameter.is_floating_point() and not _is_other(module)
    }
    transposed = _transposed(module, stacks)
    for key, parameter in stacks.items():
        for index in range(len(parameter)):
            yield f"{key}.{index}", Matrix(module, key, index, transposed)


def _is_other(module: nn.Module) -> bool:
    """Whether a module's 3-D parameters are not experts, such as the kernels of a convolution."""
    return isinstance(module, nn.modules.conv._ConvNd) or not (
        EXPERTS in type(module).__name__.lower() or hasattr(module, "num_experts")
    )


def _transposed(module: nn.Module, stacks: Mapping[str, Tensor]) -> bool:
    """Whether a module's experts are stored as (in, out).

    Its class defines it (transformers' `is_transposed`, or Aria's `in_features`, the number of
    rows); otherwise the shapes decide, as what goes into the first projection comes out of the
    last: (h, 2i) and (i, h) are (in, out), (2i, h) and (h, i) are (out, in).
    """
    if (stored := getattr(module, "is_transposed", None)) is not None:
        return bool(stored)
    if (features := getattr(module, "in_features", None)) is not None:
        return all(stack.shape[1] == features for stack in stacks.values())
    down = next((s for key, s in stacks.items() if "down" in key or key == "w2"), None)
    if down is None:
        return False
    others = [stack for stack in stacks.values() if stack is not down]
    return bool(others) and all(
        stack.shape[1] == down.shape[2] and stack.shape[2] != down.shape[1] for stack in others
    )
