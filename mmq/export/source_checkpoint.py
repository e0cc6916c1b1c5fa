"""The checkpoint that is exported, read one tensor at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from mmq.errors import InputError
from mmq.export.checkpoint_writer import DTYPE_OF
from mmq.models.checkpoint_names import stored_names
from mmq.models.checkpoint_weights import Stored, stored_weights
from mmq.models.loading import read_config
from mmq.models.skeleton import Skeleton, on_meta


@dataclass(frozen=True, slots=True)
class SourceCheckpoint:
    """The tensors of a source checkpoint.

    stored: by name in its files. names: of the tensor that each parameter is loaded from.
    """

    folder: Path
    stored: Mapping[str, Stored]
    names: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path, skeleton: Skeleton) -> "SourceCheckpoint":
        """Read the headers of a folder's files; InputError for one without safetensors."""
        stored = safetensors_of(folder)
        module = on_meta(str(folder), skeleton.family, read_config(str(folder)))
        return cls(folder, stored, stored_names(module, stored))

    def tensor(self, name: str) -> Tensor:
        """A tensor by its name in the files, as it is stored."""
        return read_tensor(self.folder, self.stored[name], name)

    def weight_name(self, layer: str) -> str:
        """The name in the files of a layer's weight; InputError where it is made of several."""
        name = self.names.get(f"{layer}.weight")
        if name is None:
            raise InputError(
                f"model: the weight of {layer} is made of several tensors of the checkpoint in "
                f"{self.folder}, so it cannot be replaced; leave its part at 16 bits"
            )
        return name

    def dtype(self, layer: str) -> torch.dtype | None:
        """The stored dtype of a layer's weight; None where it is made of several tensors."""
        name = self.names.get(f"{layer}.weight")
        return None if name is None else DTYPE_OF[self.stored[name].dtype]


def safetensors_of(folder: Path) -> Mapping[str, Stored]:
    """The tensors of a folder, by name; InputError where its weights are pickled."""
    stored = stored_weights(folder)
    if stored is None:
        raise InputError(
            f"model: {folder} has pickled weights, which cannot be exported; convert them with "
            f"save_pretrained(..., safe_serialization=True)"
        )
    return stored


def read_tensor(folder: Path, stored: Stored, name: str) -> Tensor:
    """A tensor of a folder's files, by its name there."""
    with safe_open(folder / stored.file, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
    return tensor
