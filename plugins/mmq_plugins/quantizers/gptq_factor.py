"""The factor of GPTQ: how a weight's rounding changes the weights that are rounded later.

With H = X^T X + damping and J the reversal, J H J = L L^T and R = J L J; see gptq.py. The Cholesky
factorization is in float64, of one triangle in strips of rows, and needs as much memory as X^T X
in float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

STRIP = 256  # rows that are factorized at once
MAX_DAMPING = 100.0  # times the mean diagonal; beyond it, inputs count as independent


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """How a change of one input's weight is carried to the weights that are rounded later.

    order: (in,), inputs as they are rounded. carry: (in, in) in that order, R_ij / R_jj at [j, i].
    dead: (in,) bool, inputs always zero. damping: share of the mean diagonal that was
    added; None if no share works: carry is the identity, which is rounding to nearest.
    """

    order: Tensor
    carry: Tensor
    dead: Tensor
    damping: float | None


def factorize(
    gram: Tensor,
    damping: float = 0.01,
    act_order: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Factor:
    """The factor of inputs with this X^T X (in, in), at any scale; computed in float64.

    Dead inputs are independent of all others. damping: share of the diagonal's mean over all
    inputs; increased tenfold while the sum is not positive definite. act_order: by descending
    diagonal. dtype: of the carry.
    """
    diagonal = gram.diagonal().double()
    dead = ~(torch.isfinite(diagonal) & (diagonal > 0))
    diagonal = diagonal.masked_fill(dead, 0)
    order = torch.arange(len(gram), device=gram.device)
    if act_order:
        order = torch.argsort(diagonal, descending=True)
    mean = diagonal.mean().clamp(min=1e-300)  # 0 if all are dead
    while damping <= MAX_DAMPING:
        if strips := _cholesky(gram, order.flip(0), dead, mean, damping):
            return Factor(order, _carry_(strips, dtype), dead, damping)
        damping = max(damping, 1e-7) * 10
    return Factor(order, torch.eye(len(gram), dtype=dtype, device=gram.device), dead, None)


def _cholesky(
    gram: Tensor, order: Tensor, dead: Tensor, mean: Tensor, damping: float
) -> list[Tensor] | None:
    """L^T of gram / mean + damping in this order, strips of rows, each from its diagonal on.

    None if it is not positive definite: a pivot within the rounding noise of its diagonal entry
    fails like a negative one.
    """
    strips: list[Tensor] = []
    for start in range(0, len(gram), STRIP):
        rest = order[start:]
        rows, alone = rest[:STRIP], dead[rest]
        strip = gram.index_select(0, rows).index_select(1, rest).double().div_(mean)
        corner = strip[:, : len(rows)]
        strip[alone[:STRIP]] = 0
        strip[:, alone] = 0
        corner.diagonal()[alone[:STRIP]] = 1
        least = corner.diagonal() * torch.finfo(gram.dtype).eps
        corner.diagonal().add_(damping)
        for above in strips:
            below = above[:, -len(rest) :]
            strip.addmm_(below[:, : len(rows)].mT, below, alpha=-1)
        upper, info = torch.linalg.cholesky_ex(corner, upper=True)
        corner.copy_(upper)
        right = strip[:, len(rows) :]
        right.copy_(torch.linalg.solve_triangular(upper.mT, right, upper=False))
        definite = (upper.diagonal().square() > least).all()
        if int(info) or not bool(definite & torch.isfinite(strip.sum())):
            return None
        strips.append(strip)
    return strips


def _carry_(strips: list[Tensor], dtype: torch.dtype) -> Tensor:
    """R^T with ones on its diagonal; the strips of L^T are freed as they are read."""
    columns = strips[0].shape[1]
    carry = strips[0].new_empty(columns, columns, dtype=dtype)
    while strips:
        strip = strips.pop(0)
        height, width = strip.shape
        rows = carry[width - height : width]
        rows[:, width:] = 0
        strip.div_(strip.diagonal().clone()[:, None])
        rows[:, :width] = strip.flip(0, 1)
    return carry
