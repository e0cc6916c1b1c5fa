"""Checks that a user's GGUF files are of the checkpoint, for the tensors that are only copied.

Quantized layers are found by their values. All else is copied, so without this check a vision
file of another fine-tuned model would go unnoticed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mmq.errors import InputError
from mmq.export.source_checkpoint import read_tensor
from mmq_plugins.targets.gguf_checkpoint import PartTensors
from mmq_plugins.targets.gguf_plain import PlainTensor, row_hashes

COMPUTED = ("pos", "rope", "freq")  # in names of tensors that converters compute or resize


def check_copied(tensors: Sequence[PlainTensor], checkpoint: PartTensors) -> None:
    """InputError for a matrix of the files whose values are not the checkpoint's.

    Converters permute, split, join and transpose matrices, so each row, or each column, must be a
    row of the checkpoint. Matrices of shapes that the checkpoint does not have are not compared.
    """
    matrices = [t for t in tensors if _is_matrix(t.shape) and not _is_computed(t.name)]
    rows = _Rows.of(checkpoint, matrices)
    for tensor in matrices:
        if not (rows.have(tensor.rows, tensor) or rows.have_columns(tensor)):
            raise InputError(
                f"from: {tensor.name} in the file of {tensor.file} has values that are not in the "
                f"checkpoint; give 16-bit files of the model in {checkpoint.folder}"
            )


def _is_matrix(shape: Sequence[int]) -> bool:
    return len(shape) == 2 and min(shape) > 1


def _is_computed(name: str) -> bool:
    return any(word in name for word in COMPUTED)


@dataclass(slots=True)
class _Rows:
    """Hashes of all rows of a checkpoint's matrices, by dtype and number of columns."""

    hashes: dict[tuple[torch.dtype, int], np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, checkpoint: PartTensors, matrices: Sequence[PlainTensor]) -> "_Rows":
        """Those that could be rows or columns of these matrices."""
        widths = {length for tensor in matrices for length in tensor.shape}
        dtypes = {tensor.dtype for tensor in matrices}
        parts: dict[tuple[torch.dtype, int], list[np.ndarray]] = {}
        for name, stored in checkpoint.stored.items():
            if len(stored.shape) < 2 or int(np.prod(stored.shape[1:])) not in widths:
                continue
            weight = read_tensor(checkpoint.folder, stored, checkpoint.keys[name]).flatten(1)
            for dtype in dtypes:
                key = dtype, weight.shape[1]
                parts.setdefault(key, []).append(row_hashes(weight.to(dtype)))
        return cls({key: np.concatenate(some) for key, some in parts.items()})

    def have(self, rows: np.ndarray, tensor: PlainTensor, width: int = 0) -> bool:
        """Whether they have all of these rows; True where they have none of this width."""
        known = self.hashes.get((tensor.dtype, width or tensor.shape[1]))
        return known is None or bool(np.isin(rows, known).all())

    def have_columns(self, tensor: PlainTensor) -> bool:
        """Whether they have all columns of a matrix; False where they have none as long."""
        length = tensor.shape[0]
        if (tensor.dtype, length) not in self.hashes:
            return False
        columns: Tensor = tensor.values().T
        return self.have(row_hashes(columns), tensor, length)
