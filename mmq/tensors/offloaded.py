"""Parameters that accelerate keeps in CPU memory or on disk while their module does not run.

Such a parameter is on the meta device between calls; its values are in the weights map of the
module's hook, the only interface that accelerate offers to them.
"""

from typing import Any

import torch
from torch import Tensor, nn


def _hook(module: nn.Module, key: str) -> Any:
    """The hook that keeps a parameter's values; None if the parameter is not offloaded."""
    parameter = getattr(module, key)
    hook = getattr(module, "_hf_hook", None)
    if parameter.device.type != "meta" or hook is None:
        return None
    for part in getattr(hook, "hooks", (hook,)):  # a sequence of hooks, or one
        if getattr(part, "weights_map", None) is not None:
            return part
    return None


def read_parameter(module: nn.Module, key: str) -> Tensor:
    """The values of a parameter: the parameter itself, or a copy in memory if it is offloaded."""
    hook = _hook(module, key)
    if hook is None:
        parameter: Tensor = getattr(module, key)
        return parameter.detach()
    stored: Tensor = hook.weights_map[key]
    return stored.detach()


def write_parameter_(module: nn.Module, key: str, values: Tensor) -> None:
    """Replace the values of a parameter where they are kept: in memory, or in a file on disk."""
    hook = _hook(module, key)
    if hook is None:
        parameter: Tensor = getattr(module, key)
        if parameter.data_ptr() != values.data_ptr():
            with torch.no_grad():
                parameter.copy_(values)
        return
    from accelerate.utils import offload_weight

    weights, name = hook.weights_map, key
    while hasattr(weights, "dataset"):  # a view of the whole model's map
        weights, name = weights.dataset, f"{weights.prefix}{name}"
    if name in weights.state_dict:
        weights.state_dict[name] = values
    else:
        offload_weight(values.contiguous(), name, weights.save_folder, weights.index)
