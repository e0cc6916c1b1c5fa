"""Where the weights of a spread model go, and its components there."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from mmq.models.components import Component, Layer
from mmq.models.spread import Memory, Spread
from mmq.system.available_memory import available_memory
from mmq.system.disk import in_mib
from mmq.tensors.matrices import holders
from mmq.tensors.offloaded import share_

log = logging.getLogger(__name__)


def planned_placement(root: nn.Module, dtype: torch.dtype, spread: Spread) -> Mapping[str, int]:
    """Bytes of weights on each device, from a model on the meta device."""
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    own = getattr(root, "_no_split_modules", None) or []
    unsplit = [name for name in own if name]
    root.to(dtype)
    memory = get_balanced_memory(
        root, spread.max_memory, no_split_module_classes=unsplit, dtype=dtype
    )
    places = infer_auto_device_map(
        root, max_memory=memory, no_split_module_classes=unsplit, dtype=dtype
    )
    sizes: dict[str, int] = defaultdict(int)
    visited: set[int] = set()
    for name, parameter in root.named_parameters():
        place = next((p for m, p in places.items() if not m or f"{name}.".startswith(f"{m}.")), "")
        if id(parameter) not in visited:
            visited.add(id(parameter))
            sizes[f"GPU {place}" if isinstance(place, int) else str(place)] += parameter.nbytes
    return dict(sizes)


def within_memory(spread: Spread, working: int) -> Spread:
    """The spread, limited to what quantizing leaves free on each device, unless it has limits.

    working: bytes that quantizing needs on the device of a block.
    """
    if spread.max_memory is not None:
        return spread
    from accelerate.utils import get_max_memory

    free: Memory = get_max_memory()
    if "cpu" in free:
        free["cpu"] = min(free["cpu"], available_memory())
    if working > max(free.values()):
        log.warning(
            "Quantizing the largest block may need %s of memory, but only %s is free",
            in_mib(working), in_mib(max(free.values())),
        )  # fmt: skip
    return Spread.of(spread, {place: max(0, size - working) for place, size in free.items()})


def describe_placement(
    root: nn.Module,
    components: Mapping[str, Component],
    dtype: torch.dtype,
    spread: Spread,
    working: int,
) -> str:
    """The memory that a spread model needs on each device, from a model on the meta device."""
    sizes = planned_placement(root, dtype, spread)
    where = ", ".join(f"{in_mib(size)} on {place}" for place, size in sizes.items())
    weights = sum(component.weights for component in components.values()) * dtype.itemsize
    lines = [
        f"placement in {str(dtype).removeprefix('torch.')}: {where}",
        f"memory beside it: up to {in_mib(working)} to quantize a block with a calibrated "
        f"quantizer",
        f"disk in MMQ_HOME: up to {in_mib(weights)} of original weights while a trial runs",
    ]
    if on_disk := sizes.get("disk", 0):
        lines[-1] += (
            f", and up to {in_mib(on_disk)} of changed weights; each forward pass reads "
            f"{in_mib(on_disk)}"
        )
    return "\n".join(lines)


def share_tied_(outline: nn.Module, root: nn.Module) -> None:
    """Let all modules of a spread model find the weights on disk that they share.

    outline: the same model on the meta device.
    """
    modules = dict(root.named_modules())
    for owners in holders(outline).values():
        if len(owners) > 1:
            share_([(modules[path], key) for path, _, key in owners if path in modules])


def rebind(
    components: Mapping[str, Component], outline: nn.Module, root: nn.Module
) -> dict[str, Component]:
    """The same components, with the modules of another copy of the model.

    outline: the copy that the components are of. Shared weights are recognized before a model is
    spread: afterwards each has its own place.
    """
    modules = dict(root.named_modules())
    paths = {module: path for path, module in outline.named_modules()}

    def moved(layer: Layer) -> Layer:
        old = layer.matrix
        twins = tuple((modules[paths[module]], key) for module, key in old.twins)
        matrix = replace(old, module=modules[paths[old.module]], twins=twins)
        return replace(layer, matrix=matrix)

    return {
        name: replace(component, layers=tuple(moved(layer) for layer in component.layers))
        for name, component in components.items()
    }
