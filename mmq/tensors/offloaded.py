"""Parameters that accelerate keeps in CPU memory or on disk while their module does not run.

Such a parameter is on the meta device between calls; its values are in the weights map of the
module's hook, the only interface that accelerate offers to them. An expert is read and written
alone: the parameter that it shares with others may not fit into memory twice.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def read_parameter(module: nn.Module, key: str, index: int | None = None) -> Tensor:
    """The values of a parameter, or of one entry of its first dimension.

    A view of the parameter, unless it is on disk.
    """
    place = _place(module, key)
    if place is None:
        parameter: Tensor = getattr(module, key)
        return _entry(parameter.detach(), index)
    loader, name = place
    kept = getattr(loader, "state_dict", loader)
    if name in kept:
        return _entry(kept[name].detach(), index)
    entry = loader.index[name]
    if entry.get("safetensors_file") is None:
        return _entry(_mapped(loader, name), index).clone()
    from safetensors import safe_open

    with safe_open(entry["safetensors_file"], framework="pt") as file:
        stored = file.get_slice(entry.get("weight_name", name))
        values: Tensor = stored[:] if index is None else stored[index]
    return values.to(getattr(torch, entry["dtype"])) if "dtype" in entry else values


@torch.no_grad()
def write_parameter_(
    module: nn.Module, key: str, values: Tensor, index: int | None = None
) -> None:
    """Replace the values of a parameter, or of one entry, where they are kept.

    On disk, that is a file of the offload folder: a checkpoint's own files stay as they are.
    """
    place = _place(module, key)
    loader, name = place if place is not None else (None, "")
    if loader is None or name in getattr(loader, "state_dict", loader):
        read_parameter(module, key, index).copy_(values)
        return
    if loader.index[name].get("safetensors_file") is not None:
        from accelerate.utils import offload_weight

        copy = read_parameter(module, key).contiguous()
        offload_weight(copy, name, loader.save_folder, loader.index)
    _entry(_mapped(loader, name), index).copy_(values)


def share_(holders: Iterable[tuple[nn.Module, str]]) -> None:
    """Let all modules with a shared parameter on disk find it.

    Transformers 4 enters it under the name of one of them.
    """
    places = [place for holder in holders if (place := _place(*holder)) is not None]
    entries = [
        loader.index[name] for loader, name in places if name in getattr(loader, "index", {})
    ]
    for loader, name in places if entries else ():
        if name not in getattr(loader, "state_dict", loader):
            loader.index.setdefault(name, entries[0])


def load_for_good_(module: nn.Module, device: str) -> None:
    """Keep the parameters of a module and its submodules on a device, whatever their hooks say."""
    from accelerate.hooks import remove_hook_from_module

    for part in module.modules():
        values = {
            key: read_parameter(part, key).to(device)
            for key, _ in part.named_parameters(recurse=False)
        }
        remove_hook_from_module(part)
        for key, value in values.items():
            setattr(part, key, nn.Parameter(value, requires_grad=False))


def _entry(tensor: Tensor, index: int | None) -> Tensor:
    return tensor if index is None else tensor[index]


def _place(module: nn.Module, key: str) -> tuple[Any, str] | None:
    """The map that has a parameter's values, and its name there; None if it is not offloaded."""
    parameter = getattr(module, key)
    hook = getattr(module, "_hf_hook", None)
    if parameter.device.type != "meta" or hook is None:
        return None
    for part in getattr(hook, "hooks", (hook,)):  # a sequence of hooks, or one
        weights, name = getattr(part, "weights_map", None), key
        if weights is None:
            continue
        while hasattr(weights, "dataset"):  # a view of the whole model's map
            weights, name = weights.dataset, f"{weights.prefix}{name}"
        return weights, name
    return None


def _mapped(loader: Any, name: str) -> Tensor:
    """The values in a file of the offload folder; writing into them changes the file."""
    entry = loader.index[name]
    shape = torch.Size(entry["shape"])
    path = Path(loader.save_folder) / f"{name}.dat"
    flat = torch.from_file(
        str(path), shared=True, size=shape.numel(), dtype=getattr(torch, entry["dtype"])
    )
    return flat.reshape(shape)
