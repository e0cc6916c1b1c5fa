"""A checkpoint's tensors under names that do not depend on the version of transformers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmq.export.source_checkpoint import read_tensor, safetensors_of
from mmq.models.checkpoint_weights import HARMLESS, Stored

# what transformers 4, transformers 5 and checkpoints of either call the same part of a model
PARTS = (
    (r"(model\.)?(language_model\.)?lm_head\.", "lm_head."),
    (r"(model\.)?(language_model|text_model)\.(model\.)?", "llm."),
    (r"(model\.)?(vision_tower|vision_model|visual)\.(vision_model\.)?(encoder\.)?", "vit."),
    (r"(model\.)?(multi_modal_projector|connector)\.", "connector."),
    (r"model\.(?=layers\.|embed_tokens\.|norm\.)", "llm."),
)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def part_name(name: str) -> str:
    """A module's or tensor's name that starts with its part: llm, vit, connector or lm_head.

    >>> part_name("model.language_model.layers.0.mlp.up_proj")
    'llm.layers.0.mlp.up_proj'
    >>> part_name("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight")
    'vit.layers.0.mlp.fc1.weight'
    """
    for pattern, part in PARTS:
        if match := re.match(pattern, name):
            return part + name[match.end() :]
    return name


@dataclass(frozen=True, slots=True)
class PartTensors:
    """The tensors of a checkpoint by their part names, read one at a time."""

    folder: Path
    dtype: torch.dtype  # dtype in which the model was scored
    stored: Mapping[str, Stored]  # by the names used here
    keys: Mapping[str, str]  # name in the file by the name used here

    @classmethod
    def open(cls, folder: Path, dtype: str) -> "PartTensors":
        """The tensors of a folder; InputError where its weights are pickled."""
        stored = safetensors_of(folder)
        keys = {part_name(key): key for key in stored if not HARMLESS.fullmatch(key)}
        by_part = {name: stored[key] for name, key in keys.items()}
        return cls(folder, DTYPES.get(dtype, torch.float32), by_part, keys)

    def read(self, name: str) -> Tensor:
        """A tensor by its name here, rounded as it was when the model was scored."""
        tensor = read_tensor(self.folder, self.stored[name], self.keys[name])
        return tensor if self.dtype == torch.float32 else tensor.to(self.dtype)

    def bits(self, name: str) -> int:
        """Bits per value of an unquantized tensor as it will be written."""
        wide = self.stored[name].dtype in ("F32", "F64") and self.dtype == torch.float32
        return 32 if wide else 16

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        return self.stored[name].shape
