"""Weights of any module that no quantizer here applies to, each with the reason."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.nn.utils import parametrize

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


def quantizable_linears(
    root: nn.Module, parts: Iterable[tuple[str, nn.Module]]
) -> tuple[dict[str, nn.Linear], tuple[UnquantizedWeight, ...]]:
    """The linear layers of these parts, by name in the root, and every other weight of them.

    A weight that two layers share is quantized once, under its first name; one that a module of
    another class or outside the parts shares too is left alone, since writing it would change
    that module as well.
    """
    owners = _owners(root)
    inside = {
        (f"{start}.{name}" if start and name else start or name): module
        for start, part in parts
        for name, module in part.named_modules(remove_duplicate=False)
    }
    found: dict[str, nn.Linear] = {}
    rest: list[UnquantizedWeight] = []
    first: dict[int, str] = {}
    for name, module in inside.items():
        kind = type(module).__name__
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.dim() < 2:  # biases, norms and other vectors
                continue
            where = name if key == "weight" else f"{name}.{key}".lstrip(".")
            if key != "weight" or not isinstance(module, nn.Linear):
                reason = f"{kind}, {parameter.dim()} dimensions: not a linear layer"
            elif id(parameter) in first:
                reason = f"the same weight as {first[id(parameter)]}, quantized there"
            else:
                reason = _obstacle(module) or _shared(owners[id(parameter)], name, inside)
            if reason:
                rest.append(UnquantizedWeight(where, kind, parameter.numel(), reason))
            else:
                assert isinstance(module, nn.Linear)
                found[name] = module
                first[id(parameter)] = name
        if isinstance(module, nn.Linear) and "weight" not in module._parameters:
            reason = "its weight is computed from other parameters"
            rest.append(UnquantizedWeight(name, kind, module.weight.numel(), reason))
    return found, tuple(rest)


def _owners(root: nn.Module) -> dict[int, list[tuple[str, nn.Module]]]:
    """The modules that hold each parameter, with their names."""
    found: dict[int, list[tuple[str, nn.Module]]] = defaultdict(list)
    for name, module in root.named_modules(remove_duplicate=False):
        for parameter in module._parameters.values():
            if parameter is not None:
                found[id(parameter)].append((name, module))
    return found


def _obstacle(linear: nn.Linear) -> str:
    """Why a linear layer's weight is not what its inputs are multiplied by; "" if it is."""
    weight = linear.weight
    if parametrize.is_parametrized(linear):
        return "its weight is computed from other parameters"
    if type(linear).forward is not nn.Linear.forward:
        return f"{type(linear).__name__} has a forward of its own"
    if not weight.is_floating_point():
        return f"its weight is stored as {weight.dtype}"
    if tuple(weight.shape) != (linear.out_features, linear.in_features):
        return f"its weight has the shape {tuple(weight.shape)}"
    return ""


def _shared(owners: list[tuple[str, nn.Module]], own: str, inside: dict[str, nn.Module]) -> str:
    """Which other module a weight would change in, if that one is not quantized with it."""
    for name, module in owners:
        if name != own and not (isinstance(module, nn.Linear) and name in inside):
            return f"its weight is also that of {name or 'the module itself'} (tied)"
    return ""


def shared_with(root: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """The other modules that hold a layer's weight."""
    layer = root.get_submodule(name)
    owners = _owners(root)[id(layer._parameters["weight"])]
    return [(other, module) for other, module in owners if module is not layer]


def listed(rest: Iterable[UnquantizedWeight]) -> str:
    """Reasons with the names that they apply to, in one sentence."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for each in rest:
        by_reason[each.reason].append(each.name)
    return "; ".join(
        f"{', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''} ({reason})"
        for reason, names in by_reason.items()
    )
