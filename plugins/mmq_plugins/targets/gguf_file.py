"""Write a GGUF file tensor by tensor, in any order, in one pass."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmq.export.targets import need
from mmq.system.disk import naming, write_all

FLOATS = {"F32": 0, "F16": 1, "BF16": 30}  # numbers in ggml's enumeration
ALIGNMENT = 32
ROWS = 1024  # compared at once


def gguf_package() -> ModuleType:
    """The gguf package; InputError with the extra that installs it."""
    package: ModuleType = need("gguf", "gguf")
    return package


@dataclass(frozen=True, slots=True)
class Written:
    """A tensor that is in the file: its shape (out, in), type and bytes."""

    shape: tuple[int, ...]
    kind: int
    size: int


@dataclass(slots=True)
class GgufFile:
    """An open GGUF file. Leaving it without an error completes it.

    The header comes first and names every tensor with its type and offset, which depend on the
    order in which weights arrive. Its length does not: space is reserved and filled at the end.
    """

    path: Path
    keys: Any  # a GGUFWriter with the metadata, without a file
    shapes: Mapping[str, tuple[int, ...]]  # of all tensors that it will hold
    written: dict[str, Written] = field(default_factory=dict)
    _file: FileIO | None = None
    _start: int = 0

    def __enter__(self) -> "GgufFile":
        planned = {name: Written(shape, 0, 0) for name, shape in self.shapes.items()}
        self._start = _padded(len(self._header(planned)))
        self._file = self.path.open("wb", buffering=0)
        self._file.seek(self._start)
        return self

    def add(self, name: str, data: np.ndarray, kind: int) -> None:
        """Append a tensor's bytes as they are stored."""
        if name in self.written or name not in self.shapes:
            raise ValueError(f"{self.path.name}: {name} is written twice or was not announced")
        assert self._file is not None
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        with naming(self.path, raw.nbytes):
            write_all(self._file, raw.data)
            write_all(self._file, bytes(_padded(raw.nbytes) - raw.nbytes))
        self.written[name] = Written(self.shapes[name], kind, raw.nbytes)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._file is not None
        with self._file:
            if kind is not None:
                return
            if lacking := sorted(self.shapes.keys() - self.written.keys()):
                raise ValueError(f"{self.path.name}: {len(lacking)} tensors missing: {lacking[0]}")
            header = self._header(self.written)
            assert _padded(len(header)) == self._start
            self._file.seek(0)
            write_all(self._file, header)
            write_all(self._file, bytes(self._start - len(header)))
            self._file.flush()
            os.fsync(self._file.fileno())

    def _header(self, tensors: Mapping[str, Written]) -> bytes:
        """Everything before the first tensor: metadata, and name, shape, type of every tensor."""
        gguf = gguf_package()
        scratch = self.path.with_suffix(".header")
        writer = gguf.GGUFWriter(scratch, self.keys.arch)
        writer.kv_data = self.keys.kv_data
        for name, tensor in tensors.items():
            kind = gguf.GGMLQuantizationType(tensor.kind)
            writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), tensor.size, kind)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            writer.close()
            return scratch.read_bytes()
        finally:
            scratch.unlink(missing_ok=True)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def planned_size(
    keys: Any, path: Path, tensors: Mapping[str, tuple[tuple[int, ...], float]]
) -> int:
    """Bytes of a file with this metadata and these tensors: (shape, bits per weight) by name.

    path: where a scratch file may be written.
    """
    planned = {name: Written(shape, 0, 0) for name, (shape, _) in tensors.items()}
    header = GgufFile(path, keys, {})._header(planned)
    data = (_padded(round(math.prod(shape) * bits / 8)) for shape, bits in tensors.values())
    return _padded(len(header)) + sum(data)


def as_floats(tensor: Tensor, full: bool = False) -> tuple[np.ndarray, int]:
    """A tensor in a float type that holds it exactly, with that type's number in ggml.

    full: in float32, as llama.cpp wants norms, biases and positions.
    """
    values = tensor.detach().cpu().contiguous()
    if full or values.dtype == torch.float32:
        return values.float().numpy(), FLOATS["F32"]
    parts = torch.split(values, ROWS)  # a vocabulary in float32 would be large
    if all(torch.equal(part.half().float(), part.float()) for part in parts):
        return values.half().numpy(), FLOATS["F16"]  # quicker than bfloat16, and rounds less
    return values.view(torch.int16).numpy(), FLOATS["BF16"]
