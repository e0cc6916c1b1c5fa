"""Blocks quantized from a checkpoint's files, one at a time, without a model in memory."""

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.store import ArtifactKey
from mmq.contracts.quantizer import CalibratedQuantizer
from mmq.quantization.blocks import Block
from mmq.quantization.sequential import check_finite, quantize_data_free
from mmq.system.memory import trim
from mmq.system.progress import progress_bar
from mmq.tensors.matrices import Matrix


def fill_from_files(
    artifacts: Artifacts, keys: Iterable[ArtifactKey], read: Callable[[str], Tensor]
) -> None:
    """Quantize the blocks that the store lacks; the codes equal those of the loaded model.

    read: a layer's weight by its name, with the values that the loaded model has. The quantizer
    needs no calibration inputs. A killed process repeats at most one block.
    """
    assert not isinstance(artifacts.quantizer, CalibratedQuantizer)
    store = artifacts.store
    missing = [key for key in dict.fromkeys(keys) if not store.has(key)]
    for key in progress_bar(
        missing, desc="quantize", unit="block", leave=False, quiet=artifacts.quiet
    ):
        with store.locked(f"{key.component}-{key.quantizer}"):
            if store.has(key):  # another process computed it
                continue
            started = time.perf_counter()
            layers = {name: _linear(read(name)) for name in key.layers}
            check_finite({f"{key.component}: {name}": layer for name, layer in layers.items()})
            block = Block(nn.Module(), layers)
            solved = quantize_data_free(block, artifacts.quantizer, key.bits)
            del layers, block  # the weights, before their codes are packed
            store.put(key, solved, time.perf_counter() - started)
        trim()


def _linear(weight: Tensor) -> Matrix:
    """The weight (out, in) of a linear layer of its own."""
    rows, columns = weight.shape
    layer = nn.Linear(columns, rows, bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return Matrix(layer)


def holds(dtype: torch.dtype, stored: torch.dtype) -> bool:
    """Whether a dtype has every value of another one."""
    return torch.promote_types(dtype, stored) == dtype
