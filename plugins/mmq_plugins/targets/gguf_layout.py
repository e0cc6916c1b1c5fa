"""Where each tensor of a model goes in its two GGUF files, before any is read."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmq.errors import InputError
from mmq_plugins.targets.gguf_checkpoint import PartTensors

MODEL, MMPROJ = "model.gguf", "mmproj.gguf"


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor of a GGUF file and where its values come from.

    rows: of the source that make up the tensor, in its order; None for all. full: kept in float32.
    frame: the index along the third axis of a convolution over time, which ggml stores as several.
    """

    file: str
    name: str
    source: str  # a tensor of the checkpoint, as `part_name` writes it
    shape: tuple[int, ...]
    rows: np.ndarray | None = None
    full: bool = False
    frame: int | None = None

    def cut(self, tensor: Tensor) -> Tensor:
        """The part of its source that the place holds, in its order of rows."""
        if self.frame is not None:
            tensor = tensor[:, :, self.frame]
        return tensor if self.rows is None else tensor[self.rows]


@dataclass(frozen=True, slots=True)
class Layout:
    """A model's GGUF files: places of tensors, metadata, and what a user must know."""

    places: tuple[Place, ...]
    keys: Mapping[str, Any]  # by file: a GGUFWriter with the metadata
    read: Callable[[str], Tensor]  # reads an unquantized source
    bits: Callable[[str], int]  # per value, of the same
    notes: tuple[str, ...] = ()
    stored: Mapping[str, str] = field(default_factory=dict)  # names in the checkpoint by source

    def shapes(self, file: str) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors of a file by name."""
        return {place.name: place.shape for place in self.places if place.file == file}


@dataclass(frozen=True, slots=True)
class Source:
    """What a layout is made from."""

    folder: Path
    config: Any  # of transformers
    processor: Any
    checkpoint: PartTensors
    chat: tuple[str, str, str]  # text before the pictures, before the prompt, after it


def place_all(
    checkpoint: PartTensors, file: str, names: Mapping[str, str], prefixes: Iterable[str]
) -> list[Place]:
    """Places of all tensors with these prefixes, matched by module name.

    names: GGUF's name by module, `{}` for a block's number. Tensors of modules with the name ""
    are left out. InputError for a tensor without a pattern: nothing is skipped silently.
    """
    patterns = {
        re.compile(re.escape(module).replace(r"\{\}", r"(\d+)") + r"(\.weight|\.bias|)"): name
        for module, name in names.items()
    }
    places = []
    for source in checkpoint.stored:
        if not source.startswith(tuple(prefixes)):
            continue
        matches = ((pattern.fullmatch(source), name) for pattern, name in patterns.items())
        match, name = next(((m, name) for m, name in matches if m), (None, ""))
        if match is None:
            raise InputError(
                f"model: {checkpoint.keys[source]} has no place in the GGUF files of this family; "
                f"give --from model.gguf,mmproj.gguf with 16-bit files of this model, if "
                f"llama.cpp has converted it"
            )
        if name:
            *numbers, suffix = match.groups()
            shape = checkpoint.shape(source)
            full = len(shape) < 2 or name.endswith("position_embd")
            places.append(Place(file, name.format(*numbers) + suffix, source, shape, full=full))
    return places


def half_rotated(rows: int, heads: int) -> np.ndarray:
    """The order of rows of q and k in which llama.cpp rotates neighbours instead of halves."""
    index = np.arange(rows).reshape(heads, 2, rows // heads // 2)
    return index.swapaxes(1, 2).reshape(-1)
