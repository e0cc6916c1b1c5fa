"""Packing and unpacking by the installed compressed-tensors package."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mmq.export.targets import need
from mmq_plugins.targets.ct_engines import DENSE, EXTRA, release

WORD = 32
ROWS = 512  # packed or unpacked at once


def packed_width(columns: int, bits: int) -> int:
    """Number of int32 words of a row of codes.

    Since 0.18 codes lie dense; before, each word held as many whole codes as fit. For 2, 4 and 8
    bits both are the same.
    """
    if release("compressed-tensors") >= DENSE:
        return math.ceil(columns * bits / WORD)
    return math.ceil(columns / (WORD // bits))


def pack(codes: Tensor, bits: int, packed_dim: int = 1) -> Tensor:
    """int8 codes around zero, packed into int32 words by the package."""
    need("compressed_tensors", EXTRA)
    try:
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    except ImportError:  # before 0.15
        from compressed_tensors.compressors.quantized_compressors.pack_quantized import (
            pack_to_int32,
        )
    if packed_dim == 0:
        packed: Tensor = pack_to_int32(codes, bits, packed_dim=0)
        return packed
    # the package makes int32 copies of its whole input; rows are independent
    return torch.cat([pack_to_int32(rows, bits) for rows in torch.split(codes, ROWS)])


def scheme(config: Mapping[str, Any]) -> Any:
    """A config group as the package's own object."""
    need("compressed_tensors", EXTRA)
    from compressed_tensors.quantization import QuantizationScheme

    return QuantizationScheme.model_validate(dict(config))


def unpack(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor:
    """A layer's weight, float32, decompressed by the package.

    tensors: by weight_packed, weight_scale and so on; config: their config group.
    """
    need("compressed_tensors", EXTRA)
    from compressed_tensors.compressors import BaseCompressor

    compressor = BaseCompressor.get_value_from_registry(config["format"])
    parts = [
        compressor.decompress(part, scheme(config))["weight"].float()
        for part in _row_parts(tensors, config["weights"]["num_bits"])
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _row_parts(tensors: Mapping[str, Tensor], bits: int) -> Iterator[dict[str, Tensor]]:
    """A layer's tensors, some rows at a time: the package makes several copies in int32.

    Floats are float32. Zero points are packed along the rows, in whole words for `ROWS` of them;
    before 0.18 they are not for all widths, and the layer is one part.
    """
    exact = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    rows = len(exact["weight_scale"])
    if "weight_zero_point" in exact and WORD % bits and release("compressed-tensors") < DENSE:
        yield exact
        return
    for start in range(0, rows, ROWS):
        count = min(ROWS, rows - start)
        part = {name: t[start : start + count] for name, t in exact.items()}
        if "weight_shape" in exact:
            part["weight_shape"] = torch.tensor([count, int(exact["weight_shape"][1])])
        if "weight_zero_point" in exact:
            words = slice(start * bits // WORD, math.ceil((start + count) * bits / WORD))
            part["weight_zero_point"] = exact["weight_zero_point"][words]
        yield part
