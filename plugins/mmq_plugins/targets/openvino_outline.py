"""A model to trace: small tensors as in the checkpoint, large weights without any memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmq.contracts.family import ModelFamily
from mmq.errors import InputError
from mmq.export.source_checkpoint import SourceCheckpoint
from mmq.models.checkpoint import read_config
from mmq.models.skeleton import skeleton
from mmq.models.transformers_loading import quietly
from mmq_plugins.targets.openvino_storage import STORED


class _WithoutMemory(TorchFunctionMode):
    """Parameters are made on the meta device; buffers, which hold computed values, are real."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.empty:
            options["device"] = "meta"
        return func(*args, **options)


@dataclass(frozen=True, slots=True)
class Outline:
    """A model whose linear and embedding weights are not in memory.

    large: the name in the checkpoint's files of each of those weights, by module.
    """

    family: ModelFamily
    module: nn.Module
    large: Mapping[str, str]
    checkpoint: SourceCheckpoint

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules with those weights, by path."""
        return {path: self.module.get_submodule(path) for path in self.large}

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shapes of those weights, by path of their modules."""
        shapes = {}
        for path, module in self.modules.items():
            rows, columns = module.weight.shape  # type: ignore[misc]
            shapes[path] = rows, columns
        return shapes

    @property
    def stored_types(self) -> dict[str, str]:
        """How the checkpoint stores those weights; InputError for a type that is not supported."""
        types = {}
        for path, name in self.large.items():
            kind = self.checkpoint.stored[name].dtype
            if kind not in STORED:
                raise InputError(
                    f"model: {name} is stored as {kind}, but openvino supports only "
                    f"{', '.join(STORED)}; save the model in one of them"
                )
            types[path] = STORED[kind]
        return types

    @classmethod
    def of(cls, folder: Path) -> "Outline":
        """Build it for a folder; InputError where a tensor is not in the checkpoint by itself."""
        model = skeleton(str(folder))
        checkpoint = SourceCheckpoint.open(folder, model)
        with quietly(), _WithoutMemory():
            module = model.family.skeleton(read_config(str(folder)))
            module.tie_weights()  # type: ignore[operator]
        module.eval().requires_grad_(False)
        names = _names(module, checkpoint.names)
        large = {path: names.get(f"{path}.weight", "") for path, _ in _holders(module)}
        for path, holder in _holders(module):
            _need(names, f"{path}.weight", folder)
            shape = holder.weight.shape
            holder.weight = nn.Parameter(torch.zeros(()).expand(shape), requires_grad=False)
        for name, tensor in list(module.state_dict(keep_vars=True).items()):
            owner, _, key = name.rpartition(".")
            if owner in large and key == "weight":
                continue
            if isinstance(tensor, nn.Parameter):
                _need(names, name, folder)
            if name in names:
                value = checkpoint.tensor(names[name])
                _put(module.get_submodule(owner), key, value, tensor)
        return cls(model.family, module, large, checkpoint)


def _holders(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Modules whose weights are large, by path. Subclasses may do more than their base."""
    for path, submodule in module.named_modules():
        if type(submodule) in (nn.Linear, nn.Embedding):
            yield path, submodule


def _names(module: nn.Module, stored: Mapping[str, str]) -> dict[str, str]:
    """Names in files by parameter; tied parameters share the one that is there."""
    names, by_id = dict(stored), {}
    parameters = list(module.named_parameters(remove_duplicate=False))
    for name, parameter in parameters:
        if name in names:
            by_id[id(parameter)] = names[name]
    return names | {
        name: by_id[id(parameter)] for name, parameter in parameters if id(parameter) in by_id
    }


def _need(names: Mapping[str, str], name: str, folder: Path) -> None:
    if name not in names:
        raise InputError(
            f"target: {name} is not a tensor of its own in the checkpoint in {folder}, which "
            f"openvino needs; save the model again with save_pretrained"
        )


def _put(owner: nn.Module, key: str, value: Tensor, old: Tensor) -> None:
    if value.is_floating_point():
        value = value.float()
    if isinstance(old, nn.Parameter):
        owner._parameters[key] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[key] = value
