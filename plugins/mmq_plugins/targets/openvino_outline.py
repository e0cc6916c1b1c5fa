"""A model to trace: small tensors as in the checkpoint, large weights without any memory."""

from collections.abc import Collection, Iterable, Iterator, Mapping
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


class _Lookup(nn.Embedding):
    """Looks rows up in a plain table, for a subclass that first changes the indices."""

    plain: nn.Embedding

    def forward(self, input: Tensor) -> Tensor:
        """The rows at these indices."""
        rows: Tensor = self.plain(input)
        return rows


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
        modules = {path: self.module.get_submodule(path) for path in self.large}
        return {path: m.plain if isinstance(m, _Lookup) else m for path, m in modules.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shapes of those weights, by path of their modules."""
        shapes = {}
        for path, module in self.modules.items():
            rows, columns = module.weight.shape  # type: ignore[misc]
            shapes[path] = rows, columns
        return shapes

    def twins(self, quantized: Collection[str]) -> dict[str, list[str]]:
        """The other modules that share the tensor of a quantized one, by its path."""
        by_tensor: dict[str, list[str]] = {}
        for path, name in self.large.items():
            by_tensor.setdefault(name, []).append(path)
        return {
            path: [other for other in by_tensor[self.large[path]] if other not in quantized]
            for path in quantized
        }

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
    def of(cls, folder: Path, quantized: Iterable[str] = ()) -> "Outline":
        """Build it for a folder; InputError where a tensor is not in the checkpoint by itself.

        quantized: modules whose weights must be large; InputError for one that cannot be.
        """
        model = skeleton(str(folder))
        checkpoint = SourceCheckpoint.open(folder, model)
        with quietly(), _WithoutMemory():
            module = model.family.skeleton(read_config(str(folder)))
            module.tie_weights()  # type: ignore[operator]
        module.eval().requires_grad_(False)
        names = _names(module, checkpoint.names)
        for path in quantized:
            split_lookup_(module, path)
        weightless: set[nn.Module] = set()
        large = {path: names.get(f"{path}.weight", "") for path, _ in _holders(module)}
        for path, holder in _holders(module):
            _need(names, f"{path}.weight", folder)
            weightless.add(_forget_(holder))
        for name, tensor in list(module.state_dict(keep_vars=True).items()):
            owner, _, key = name.rpartition(".")
            if key == "weight" and module.get_submodule(owner) in weightless:
                continue
            if isinstance(tensor, nn.Parameter):
                _need(names, name, folder)
            if name in names:
                value = checkpoint.tensor(names[name])
                _put(module.get_submodule(owner), key, value, tensor)
        return cls(model.family, module, large, checkpoint)


def _holders(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Modules whose weights are large, by path. Subclasses may do more than their base."""
    plain = {id(m.plain) for m in module.modules() if isinstance(m, _Lookup)}
    for path, submodule in module.named_modules():
        is_plain = type(submodule) in (nn.Linear, nn.Embedding) and id(submodule) not in plain
        if is_plain or isinstance(submodule, _Lookup):
            yield path, submodule


def split_lookup_(module: nn.Module, path: str) -> None:
    """Put a plain table into one that changes the indices first, such as OPT's positions.

    Such a class calls `super().forward`, which then is that of `_Lookup`. InputError for a module
    of any other class than those of PyTorch.
    """
    holder: Any = module.get_submodule(path)
    kind = type(holder)
    if kind in (nn.Linear, nn.Embedding):
        return
    if not isinstance(holder, nn.Embedding):
        raise InputError(
            f"target: openvino cannot store {path} quantized: it is a {kind.__name__}, which may "
            f"do more than a linear layer; leave its part at 16 bits"
        )
    holder.__class__ = type(kind.__name__, (kind, _Lookup), {})
    rows, columns = holder.weight.shape
    holder.plain = nn.Embedding(rows, columns, device="meta")


def _forget_(holder: Any) -> nn.Module:
    """Replace a weight by one without memory, and return the module that has it."""
    if isinstance(holder, _Lookup):
        holder, shell = holder.plain, holder
        del shell.weight  # a class that reads it itself fails instead of reading zeros
    shape = holder.weight.shape
    holder.weight = nn.Parameter(torch.zeros(()).expand(shape), requires_grad=False)
    module: nn.Module = holder
    return module


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
