"""AWQ's errors from the Gram matrix G = X^T X of a layer's inputs, with little extra memory.

G may be larger than the weight, so no second matrix of its size is allocated: errors of scaled
inputs use G itself and the unscaled difference, and correlations are computed in strips. Clips
need only diagonal blocks of G, which are a copy of it if a group is a row.
"""

from dataclasses import replace

import torch
from torch import Tensor

from mmq.tensors.quantized_weight import QuantizedWeight

TILE = 1 << 19  # weights processed at once, small enough for a core's cache
BLOCK = 1 << 21  # differences multiplied by G at once: products of few rows are slow
STRIP = 256  # columns or rows of G read at once


def tiles(weight: Tensor, size: int = TILE) -> list[slice]:
    """Slices of a weight's rows (out, in) with about `size` numbers each."""
    step = max(size // weight.shape[1], 1)
    return [slice(start, start + step) for start in range(0, len(weight), step)]


def squared_errors_(difference: Tensor, gram: Tensor) -> Tensor:
    """Forms d G d^T of rows d: (..., rows, n), symmetric G (..., n, n) -> (..., rows).

    Overwrites the difference: all but its last columns are doubled.
    """
    n = gram.shape[-1]
    strip = min(STRIP, max(n // 2, 1))  # blocks to the left count twice, those to the right never
    total = torch.zeros(difference.shape[:-1], device=difference.device)
    for start in range(0, n, strip):
        stop = start + strip
        product = difference[..., :stop] @ gram[..., :stop, start:stop]
        total += product.mul_(difference[..., start:stop]).sum(-1)
        if stop < n:
            difference[..., start:stop] *= 2
    return total


def output_loss(quantized: QuantizedWeight, weight: Tensor, gram: Tensor) -> float:
    """trace(D G D^T) of D = Q - W, as stored; negative values of a row are rounding noise."""
    total = 0.0
    for rows in tiles(weight, BLOCK):
        zero_point = None if quantized.zero_point is None else quantized.zero_point[rows]
        part = replace(
            quantized,
            codes=quantized.codes[rows],
            scale=quantized.scale[rows],
            zero_point=zero_point,
        )
        error = squared_errors_(part.dequantize().sub_(weight[rows]), gram)
        total += float(error.clamp_(min=0).sum(dtype=torch.float64))
    return total


def scaled_columns(gram: Tensor, scale: Tensor, part: slice) -> Tensor:
    """Columns (in, part) of the Gram matrix of the inputs divided by a scale (in,)."""
    return (gram[:, part] / scale[part]).div_(scale[:, None])


def scaled_blocks(gram: Tensor, size: int, scale: Tensor | None = None) -> Tensor:
    """Blocks of groups in the Gram matrix of inputs divided by a scale, (n_groups, g, g)."""
    blocks = gram.reshape(-1, size, len(gram) // size, size)  # (n_groups, g, n_groups, g)
    diagonal = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    if scale is None:
        return diagonal
    parts = scale.reshape(-1, size)
    return (diagonal / parts[:, None]).div_(parts[..., None])


def trust(gram: Tensor, count: int) -> float:
    """The share of the correlations between inputs that exceeds chance, 0 to 1.

    Squared correlations of independent inputs are 1/count on average.
    """
    spread = gram.diagonal().clamp(min=0).sqrt()
    used, total = int((spread > 0).sum()), 0.0
    for rows, own in zip(torch.split(gram, STRIP), torch.split(spread, STRIP), strict=True):
        squares = (rows / spread).div_(own[:, None]).nan_to_num_(0, 0, 0).square_()
        total += float(squares.sum(dtype=torch.float64))
    return max(1 - used * (used - 1) / count / max(total - used, 1e-9), 0.0)
