"""Safetensors files written one tensor at a time, so that no model is in memory."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from mmq.models.checkpoint_files import INDEX, SINGLE
from mmq.system.atomic import sync
from mmq.system.disk import naming

SHARD_BYTES = 2**30  # approximate size of one file
ALIGNED = 8  # bytes: readers view tensors in place
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPE_OF = {name: dtype for dtype, name in DTYPES.items()}
WIDTHS = {name: torch.empty(0, dtype=dtype).element_size() for dtype, name in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Outline:
    """A tensor to write: its name, dtype in safetensors' notation, and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * WIDTHS[self.dtype]


@dataclass(frozen=True, slots=True)
class Unit:
    """Tensors that are written together.

    layers: the layer that they hold, or the experts that share them; none for a copied tensor.
    """

    outlines: tuple[Outline, ...]
    layers: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of their values."""
        return sum(outline.bytes for outline in self.outlines)


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a checkpoint."""

    name: str
    units: tuple[Unit, ...]

    @property
    def header_bytes(self) -> int:
        """Bytes reserved for the header, its length field included.

        The header is written last, when the offsets are known, and padded with spaces.
        """
        outlines = [outline for unit in self.units for outline in unit.outlines]
        widest = len(str(2 * sum(unit.bytes for unit in self.units)))
        entries = {o.name: _entry(o.dtype, o.shape, 10**widest, 10**widest) for o in outlines}
        size = 8 + len(_header(entries))
        return size + -size % ALIGNED

    @property
    def bytes(self) -> int:
        """Planned bytes of the file."""
        return self.header_bytes + sum(unit.bytes for unit in self.units)


def plan_shards(units: Iterable[Unit], limit: int = SHARD_BYTES) -> list[Shard]:
    """Units in files of about `limit` bytes, in order, with transformers' file names.

    A checkpoint in one file has no index.
    """
    parts: list[list[Unit]] = []
    filled = limit + 1
    for unit in units:
        if filled + unit.bytes > limit and (not parts or parts[-1]):
            parts.append([])
            filled = 0
        parts[-1].append(unit)
        filled += unit.bytes
    count = len(parts)
    names = [f"model-{k:05d}-of-{count:05d}.safetensors" for k in range(1, count + 1)]
    return [
        Shard(SINGLE if count == 1 else name, tuple(part))
        for name, part in zip(names, parts, strict=True)
    ]


def index_text(shards: Sequence[Shard]) -> str:
    """The index of several shards, as transformers reads it."""
    places = {o.name: s.name for s in shards for u in s.units for o in u.outlines}
    size = sum(unit.bytes for shard in shards for unit in shard.units)
    return json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=1)


def write_index(folder: Path, shards: Sequence[Shard]) -> None:
    """Write the index if there are several shards."""
    if len(shards) > 1:
        with naming(folder / INDEX):
            (folder / INDEX).write_text(index_text(shards))


class ShardWriter:
    """Writes one safetensors file, which gets its name when the context ends without an error.

    Tensors that would leave the next one unaligned are written last: scales and other small ones.
    """

    def __init__(self, folder: Path, shard: Shard) -> None:
        self._path, self._shard = folder / shard.name, shard
        self._aside = self._path.with_name(f"{shard.name}.unfinished")
        self._room = shard.header_bytes
        self._entries: dict[str, Any] = {}
        self._late: list[tuple[str, Tensor]] = []
        self._end = 0

    def __enter__(self) -> Self:
        with naming(self._aside):
            self._file = self._aside.open("wb", buffering=0)
        self._file.seek(self._room)
        return self

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Append tensors; an OSError names the file."""
        for name, tensor in tensors.items():
            if tensor.nbytes % ALIGNED:
                self._late.append((name, tensor.clone()))
            else:
                self._write(name, tensor)

    def _write(self, name: str, tensor: Tensor) -> None:
        data = tensor.detach().cpu().contiguous()
        end = self._end + data.nbytes
        self._entries[name] = _entry(DTYPES[data.dtype], tuple(data.shape), self._end, end)
        rest = memoryview(data.reshape(-1).view(torch.uint8).numpy().data)
        with naming(self._path, data.nbytes):
            while rest:
                rest = rest[self._file.write(rest) :]
        self._end = end

    def __exit__(self, kind: object, *details: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
            if kind is not None:
                self._aside.unlink(missing_ok=True)

    def _finish(self) -> None:
        for name, tensor in sorted(self._late, key=lambda pair: -pair[1].element_size()):
            self._write(name, tensor)
        expected = {outline.name for unit in self._shard.units for outline in unit.outlines}
        if expected != set(self._entries):
            raise RuntimeError(f"{self._path.name}: {expected ^ set(self._entries)} differ")
        header = _header(self._entries).ljust(self._room - 8)
        with naming(self._path):
            self._file.seek(0)
            self._file.write(len(header).to_bytes(8, "little") + header)
            os.fsync(self._file.fileno())
            self._aside.replace(self._path)
            sync(self._path.parent)


def _entry(dtype: str, shape: tuple[int, ...], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def _header(entries: Mapping[str, Any]) -> bytes:
    return json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
