"""The checkpoint that is exported, read one tensor at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from mmq.contracts.target import ExportSource, WeightSpec
from mmq.errors import InputError
from mmq.export.checkpoint_writer import DTYPE_OF
from mmq.models.checkpoint_names import stored_experts, stored_names
from mmq.models.checkpoint_weights import Stored, stored_weights
from mmq.models.components import Layer
from mmq.models.loading import read_config
from mmq.models.skeleton import Skeleton, on_meta
from mmq.tensors.stored_experts import StoredExperts


@dataclass(frozen=True, slots=True)
class SourceCheckpoint:
    """The tensors of a source checkpoint.

    stored: by name in its files. names: of the tensor that each parameter is loaded from. experts:
    where the experts of each of their parameters are.
    """

    folder: Path
    stored: Mapping[str, Stored]
    names: Mapping[str, str]
    experts: Mapping[str, StoredExperts] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, skeleton: Skeleton) -> "SourceCheckpoint":
        """Read the headers of a folder's files; InputError for one without safetensors."""
        stored = safetensors_of(folder)
        module = on_meta(str(folder), skeleton.family, read_config(str(folder)))
        return cls(folder, stored, stored_names(module, stored), stored_experts(module, stored))

    def as_source(
        self, skeleton: Skeleton, dtype: str, specs: Mapping[str, WeightSpec] | None = None
    ) -> ExportSource:
        """The source of an export. dtype: the one that the trial computed in."""
        return ExportSource(
            self.folder, skeleton, dtype,
            stored=self.names, specs=specs or {}, experts=self.experts,
        )  # fmt: skip

    @classmethod
    def of(cls, source: ExportSource) -> "SourceCheckpoint":
        """The checkpoint of an export, whose names are known."""
        return cls(
            source.folder, stored_weights(source.folder) or {}, source.stored, source.experts
        )

    def tensor(self, name: str) -> Tensor:
        """A tensor by its name in the files, as it is stored."""
        return read_tensor(self.folder, self.stored[name], name)

    def weight(self, layer: Layer) -> Tensor:
        """A layer's weight (out, in), as it is stored."""
        if layer.matrix.expert is None:
            return self.tensor(self.weight_name(layer.name))
        stack, expert = self.stack_of(layer.name)

        def read(name: str, index: int | None) -> Tensor:
            return read_tensor(self.folder, self.stored[name], name, index)

        matrix = stack.matrix(expert, read)
        return matrix.T if layer.matrix.transposed else matrix

    def tensors_of(self, layer: Layer) -> tuple[str, ...]:
        """The names in the files of what holds a layer's weight.

        InputError where it cannot be replaced.
        """
        if layer.matrix.expert is None:
            return (self.weight_name(layer.name),)
        stack, expert = self.stack_of(layer.name)
        return stack.names(expert)

    def weight_name(self, layer: str) -> str:
        """The name in the files of a layer's weight; InputError where it is made of several."""
        name = self.names.get(f"{layer}.weight")
        if name is None:
            raise self._irreplaceable(layer)
        return name

    def stack_of(self, layer: str) -> tuple[StoredExperts, int]:
        """Where the files hold an expert, and its number; InputError for another layout."""
        parameter, _, number = layer.rpartition(".")
        if parameter not in self.experts:
            raise self._irreplaceable(layer)
        return self.experts[parameter], int(number)

    def _irreplaceable(self, layer: str) -> InputError:
        return InputError(
            f"model: the weight of {layer} is made of several tensors of the checkpoint in "
            f"{self.folder}, so it cannot be replaced; leave its part at 16 bits"
        )

    def dtype(self, layer: Layer) -> torch.dtype | None:
        """The stored dtype of a layer's weight; None where it is made of several tensors."""
        try:
            name = self.tensors_of(layer)[0]
        except InputError:
            return None
        return DTYPE_OF[self.stored[name].dtype]


def safetensors_of(folder: Path) -> Mapping[str, Stored]:
    """The tensors of a folder, by name; InputError where its weights are pickled."""
    stored = stored_weights(folder)
    if stored is None:
        raise InputError(
            f"model: {folder} has pickled weights, which cannot be exported; convert them with "
            f"save_pretrained(..., safe_serialization=True)"
        )
    return stored


def read_tensor(folder: Path, stored: Stored, name: str, index: int | None = None) -> Tensor:
    """A tensor of a folder's files by its name there, or one entry of its first dimension."""
    with safe_open(folder / stored.file, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name) if index is None else file.get_slice(name)[index]
    return tensor
