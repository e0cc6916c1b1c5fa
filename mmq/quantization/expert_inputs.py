"""The inputs of each expert of a mixture: the tokens that are routed to it.

Experts that share a 3-D parameter have no module of their own to hook. Their products are
recognized instead: a matrix product whose second factor lies in the parameter's memory. That holds
for transformers' loops over experts ("eager") and for products of all experts at once.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmq.errors import InputError
from mmq.tensors.matrices import Matrix

PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm,
            torch.bmm, Tensor.bmm)  # fmt: skip
Listen = Callable[[str, Tensor], None]


class ExpertInputs(TorchFunctionMode):
    """While active, reports the inputs of every expert of these, (tokens, in), by layer.

    InputError for an expert that is multiplied in the other orientation than its matrix has.
    """

    def __init__(self, layers: Mapping[str, Matrix], listen: Listen) -> None:
        super().__init__()
        self._listen = listen
        self._stacks: dict[tuple[int, str], dict[int, tuple[str, Matrix]]] = {}
        for name, matrix in layers.items():
            assert matrix.expert is not None
            stack = self._stacks.setdefault((id(matrix.module), matrix.key), {})
            stack[matrix.expert] = name, matrix
        modules = [m for matrix in layers.values() for m in _modules(matrix)]
        self._eager = _eager({id(module): module for module in modules})

    def __enter__(self) -> Self:
        self._eager.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *details: Any) -> None:
        super().__exit__(*details)  # type: ignore[no-untyped-call]
        self._eager.__exit__(*details)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Report the call if it is a product with an expert, then run it."""
        if (func is F.linear or func in PRODUCTS) and len(args) > 1:
            self._report(args[0], args[1], transposed=func is not F.linear)
        return func(*args, **(kwargs or {}))

    def _report(self, inputs: Tensor, weight: Tensor, transposed: bool) -> None:
        """transposed: whether the weight is given as (in, out)."""
        for stack in self._stacks.values():
            matrix = next(iter(stack.values()))[1]
            parameter = _read_by(weight, matrix)
            if parameter is None:
                continue
            if weight.stride(-1) != 1:  # a transposed view: it is stored the other way
                transposed = not transposed
            if transposed != matrix.transposed:
                raise InputError(
                    f"{type(matrix.module).__name__}.{matrix.key}: its experts are not stored as "
                    f"their shapes suggest, so that calibration cannot use them; choose rtn"
                )
            start = (weight.storage_offset() - parameter.storage_offset()) // parameter.stride(0)
            if weight.dim() == 2:
                self._hear(stack, start, inputs)
            else:
                for place in range(len(weight)):
                    self._hear(stack, start + place, inputs[place])

    def _hear(self, stack: dict[int, tuple[str, Matrix]], expert: int, inputs: Tensor) -> None:
        if expert in stack:
            rows = inputs.reshape(-1, inputs.shape[-1])
            rows = rows[(rows != 0).any(-1)]  # products of all experts mask other tokens by zeros
            if len(rows):
                self._listen(stack[expert][0], rows)


def _modules(matrix: Matrix) -> list[nn.Module]:
    return [matrix.module, *(twin for twin, _ in matrix.twins)]


def _read_by(weight: Tensor, matrix: Matrix) -> Tensor | None:
    """The parameter, of the matrix or of a twin, whose memory a weight lies in; None if none."""
    address = weight.untyped_storage().data_ptr()
    parameters = [matrix.parameter, *(getattr(module, key) for module, key in matrix.twins)]
    return next((p for p in parameters if p.untyped_storage().data_ptr() == address), None)


@contextmanager
def _eager(modules: Mapping[int, nn.Module]) -> Iterator[None]:
    """Run experts in a loop, one product per expert, where transformers offers a choice."""
    configs = {id(c): c for m in modules.values() if (c := getattr(m, "config", None)) is not None}
    before = {
        key: config._experts_implementation
        for key, config in configs.items()
        if hasattr(config, "_experts_implementation")
    }
    try:
        for key in before:
            configs[key]._experts_implementation = "eager"
        yield
    finally:
        for key, implementation in before.items():
            configs[key]._experts_implementation = implementation
