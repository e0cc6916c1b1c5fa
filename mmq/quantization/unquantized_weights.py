"""Weights of a module that quantizers do not apply to, each with the reason."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.nn.utils import parametrize

from mmq.tensors.matrices import Matrix, holders, is_plain, matrices, with_twins

SHOWN = 12


@dataclass(frozen=True, slots=True)
class UnquantizedWeight:
    """A weight (matrix or larger) that stays at full precision.

    name: of its module, or of the parameter where that is not called weight. kind: the module's
    class.
    """

    name: str
    kind: str
    weights: int
    reason: str


def quantizable_matrices(
    root: nn.Module, parts: Iterable[tuple[str, nn.Module]]
) -> tuple[dict[str, Matrix], tuple[UnquantizedWeight, ...]]:
    """The linear layers and experts of these parts, by name in the root, and the other weights.

    A weight shared by two layers is quantized once, under its first name. One shared with a module
    of another class or outside the parts is left out: writing it would change that module too.
    """
    owners = holders(root)
    modules = {
        (f"{start}.{name}" if start and name else start or name): module
        for start, part in parts
        for name, module in part.named_modules(remove_duplicate=False)
    }
    usable = {matrix.identity: matrix for _, matrix in matrices(root)}
    layers: dict[str, Matrix] = {}
    left_out: list[UnquantizedWeight] = []
    first_name: dict[int, str] = {}
    for name, module in modules.items():
        kind = type(module).__name__
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.dim() < 2:  # biases, norms and other vectors
                continue
            where = name if key == "weight" else f"{name}.{key}".lstrip(".")
            if (id(parameter), 0) in usable:
                for index in range(len(parameter)):
                    layers[f"{where}.{index}"] = with_twins(usable[id(parameter), index], owners)
                continue
            if key != "weight" or not isinstance(module, nn.Linear):
                reason = f"{kind}, {parameter.dim()} dimensions: not a linear layer"
            elif id(parameter) in first_name:
                reason = f"the same weight as {first_name[id(parameter)]}, quantized there"
            else:
                router = "" if (id(parameter), None) in usable else "chooses the experts"
                reason = (
                    _obstacle(module) or router or _shared(owners[id(parameter)], name, modules)
                )
            if reason:
                left_out.append(UnquantizedWeight(where, kind, parameter.numel(), reason))
            else:
                layers[name] = with_twins(Matrix(module), owners)
                first_name[id(parameter)] = name
        if isinstance(module, nn.Linear) and "weight" not in module._parameters:
            reason = "its weight is computed from other parameters"
            left_out.append(UnquantizedWeight(name, kind, module.weight.numel(), reason))
    return layers, tuple(left_out)


def _obstacle(linear: nn.Linear) -> str:
    """Why a linear layer does not simply multiply by its weight; "" if it does."""
    weight = linear.weight
    if parametrize.is_parametrized(linear):
        return "its weight is computed from other parameters"
    if not is_plain(linear):
        return f"{type(linear).__name__} has a forward of its own"
    if not weight.is_floating_point():
        return f"its weight is stored as {weight.dtype}"
    if tuple(weight.shape) != (linear.out_features, linear.in_features):
        return f"its weight has the shape {tuple(weight.shape)}"
    return ""


def _shared(
    owners: list[tuple[str, nn.Module, str]], own: str, modules: dict[str, nn.Module]
) -> str:
    """The other, unquantized module that a weight belongs to, as a reason; "" if none."""
    for name, module, _ in owners:
        if name != own and not (isinstance(module, nn.Linear) and name in modules):
            return f"its weight is also that of {name or 'the module itself'} (tied)"
    return ""


def shared_with(root: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """The other modules that hold a layer's weight."""
    layer = root.get_submodule(name)
    owners = holders(root)[id(layer._parameters["weight"])]
    return [(other, module) for other, module, _ in owners if module is not layer]


def list_by_reason(weights: Iterable[UnquantizedWeight]) -> str:
    """The names by reason, in one sentence."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for weight in weights:
        by_reason[weight.reason].append(weight.name)
    return "; ".join(
        f"{', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''} ({reason})"
        for reason, names in by_reason.items()
    )
