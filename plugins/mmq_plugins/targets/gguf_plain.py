"""Tensors of a user's 16-bit GGUF files, compared with a checkpoint by hashes of their rows."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

PLAIN = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


@dataclass(frozen=True)
class PlainTensor:
    """A tensor of a 16-bit GGUF file."""

    file: str
    data: Any  # of gguf's reader

    @property
    def name(self) -> str:
        """Its name in the file."""
        return str(self.data.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape as PyTorch has it."""
        return tuple(int(size) for size in reversed(self.data.shape))

    @property
    def dtype(self) -> torch.dtype:
        """Its dtype."""
        return PLAIN[self.data.tensor_type.name]

    def values(self) -> Tensor:
        """Its values, in memory."""
        raw = torch.from_numpy(np.array(self.data.data).reshape(-1).view(np.uint8))
        return raw.view(self.dtype).reshape(self.shape)

    @cached_property
    def rows(self) -> np.ndarray:
        """A hash of each row, uint64 (rows,)."""
        return row_hashes(self.values())


def row_hashes(weight: Tensor) -> np.ndarray:
    """A hash of each row of a weight, uint64 (rows,)."""
    raw = weight.contiguous().view(torch.uint8).numpy()
    digests = b"".join(blake2b(row.data, digest_size=8).digest() for row in raw)
    return np.frombuffer(digests, np.uint64)
