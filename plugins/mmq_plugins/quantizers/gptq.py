"""GPTQ: rounds weights one input after another; later weights compensate earlier errors.

Frantar, Ashkboos, Hoefler, Alistarh: "GPTQ: Accurate Post-Training Quantization for Generative
Pre-trained Transformers", arXiv 2210.17323. With H = X^T X + damping and U the upper Cholesky
factor of H^-1, the paper's algorithm 1 subtracts E_i U_ij from the later columns j, where
E_i = (w'_i - q_i) / U_ii and w' is the weight as updated so far.

Here the same recursion needs no inverse. J being the reversal, J H J = L L^T, so R = J L J is
upper triangular, H = R R^T and U = R^-1. The changes D = W - Q are D = E U, so E = D R, and the
weight of column j just before it is rounded is w'_j = w_j + sum over i < j of D_i R_ij / R_jj: a
product of the changes with a matrix that all rows share. Rows, layers that read the same inputs
and bit widths are therefore solved together, as the columns of one matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mmq.contracts.quantizer import CalibratedQuantizer, ScaleDtype, Solved
from mmq.tensors.affine import SCALE_DTYPES, MappingType, choose_qparams, value_range
from mmq.tensors.quantized_weight import QuantizedWeight, compact, planned_bits, round_to_nearest
from mmq_plugins.quantizers.gptq_factor import Factor, factorize

if TYPE_CHECKING:
    from mmq.tensors.layer_inputs import LayerInputs

LEAF = 16  # columns rounded between two matrix products
TILE_BYTES = 2**26  # size of the matrix of changes; further rows are in the next tile


# --- the ranges ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Ranges:
    """Which weights share a range, and how a range becomes a scale.

    group_size: 0 is one group per row. static_groups: a group consists of contiguous inputs, and
    its range is that of their original weights; otherwise of inputs that are rounded in sequence,
    and its range is that of their weights when the first one is rounded. (auto_gptq uses stale
    weights if a group begins inside one of its blocks of 128 columns.) A group's range ignores
    dead inputs. scale_dtype: scales are rounded to it before use.
    """

    group_size: int = 0
    mapping: MappingType = MappingType.ASYMMETRIC
    static_groups: bool = True
    scale_dtype: torch.dtype = torch.float16


def weight_range(weights: Tensor, dead: Tensor | None) -> tuple[Tensor, Tensor]:
    """Lowest and highest of n weights, zero included: (..., n, m) -> (..., m).

    dead: (..., n) or None; those weights count only if all others are zero.
    """
    low, high = value_range(weights, -2)
    if dead is None:
        return low, high
    alive_low, alive_high = weight_range(weights.masked_fill(dead[..., None], 0), None)
    zero = alive_low == alive_high
    return torch.where(zero, low, alive_low), torch.where(zero, high, alive_high)


# --- the solver ----------------------------------------------------------------------------------
class _Tile:
    """Some rows at every width, as columns of a matrix with inputs in rounding order as rows."""

    def __init__(
        self, weight: Tensor, factor: Factor, carry: Tensor, ranges: Ranges, widths: Tensor
    ) -> None:
        rows, columns = weight.shape
        self.carry, self.ranges, self.widths = carry, ranges, widths
        size = self.group_size = ranges.group_size or columns
        self.dynamic = ranges.group_size > 0 and not ranges.static_groups
        transposed = weight.T.contiguous().to(carry.dtype)  # (in, rows)
        self.original = transposed.index_select(0, factor.order)
        # (in, widths, rows): updated weights before, and changes after rounding
        self.changes = carry.new_empty(columns, len(widths), rows)
        self.changes.copy_(self.original[:, None])
        self.flat = self.changes.view(columns, -1)
        shape = (len(widths), columns, rows)  # inputs in the order of the weight
        self.codes = torch.empty(shape, dtype=torch.uint8, device=weight.device)
        self.order = factor.order
        self.dead = factor.dead if ranges.group_size and bool(factor.dead.any()) else None
        self.group_of = factor.order // size
        if self.dynamic:
            self.dead = None if self.dead is None else self.dead[factor.order]
            self.group_of = torch.arange(columns, device=weight.device) // size
            self.responses = _responses(carry, size)
            self.grids = carry.new_empty(4, columns // size, len(widths), rows)
        else:
            dead = None if self.dead is None else self.dead.view(-1, size)
            low, high = weight_range(transposed.view(-1, size, rows), dead)  # (groups, rows)
            self.grids = self._grid(low[:, None], high[:, None])

    def _grid(self, low: Tensor, high: Tensor) -> Tensor:
        """Scale, zero point, first and last step of ranges (..., 1 or widths, rows), stacked."""
        empty = low == high  # as in auto_gptq: errors carried to zero weights also need codes
        low, high = torch.where(empty, -1, low), torch.where(empty, 1, high)
        scale, zero_point = choose_qparams(
            low, high, self.widths, self.ranges.mapping, self.ranges.scale_dtype
        )
        return torch.stack([scale, zero_point, -zero_point, 2**self.widths - 1 - zero_point])

    def solve(self) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (widths, in, rows), and scale, zero point (groups, widths, rows)."""
        self.groups = self.group_of.tolist()
        self.grid_of = [grid.unbind() for grid in self.grids.transpose(0, 1)]
        self.steps = torch.empty_like(self.changes[:LEAF])  # code - zero point of some columns
        self._solve(0, len(self.flat))
        return self.codes, self.grids[0], self.grids[1]

    def _solve(self, start: int, stop: int) -> None:
        """Round columns start to stop, to which all earlier changes are already carried.

        No group is split before all changes are carried to it and its range is chosen.
        """
        size = stop - start
        if self.dynamic and size == self.group_size:
            self._take_range(start, stop)
        if size <= min(LEAF, self.group_size):
            self._round(start, stop)
            return
        unit = self.group_size if size > self.group_size else LEAF
        half = start + unit * ((size // unit + 1) // 2)
        self._solve(start, half)
        self.flat[half:stop].addmm_(self.carry[half:stop, start:half], self.flat[start:half])
        self._solve(half, stop)

    def _take_range(self, start: int, stop: int) -> None:
        """Choose a group's parameters from its updated weights before any of them is rounded.

        The columns contain the changes carried from columns before `start`, as if the columns in
        between had not changed. But E = D R is 0 for unrounded columns, so they respond to each
        other's changes.
        """
        group = start // self.group_size
        pending = self.changes[start:stop] - self.original[start:stop, None]
        fresh = torch.addmm(self.flat[start:stop], self.responses[group], pending.flatten(1))
        low, high = weight_range(fresh, None if self.dead is None else self.dead[start:stop])
        limits = (limit.view_as(self.changes[0]) for limit in (low, high))
        self.grids[:, group] = self._grid(*limits)

    def _round(self, start: int, stop: int) -> None:
        """Round a few columns, carrying each one's change to the next ones."""
        for column in range(start, stop):
            if column > start:
                carried = self.carry[column, start:column]
                self.flat[column].addmv_(self.flat[start:column].T, carried)
            scale, _, first, last = self.grid_of[self.groups[column]]
            steps = self.steps[column - start]
            torch.div(self.changes[column], scale, out=steps).round_()
            torch.clamp(steps, first, last, out=steps)
            torch.addcmul(self.original[column], steps, scale, value=-1, out=self.changes[column])
        codes = self.steps[: stop - start]
        codes += self.grids[1].index_select(0, self.group_of[start:stop])
        self.codes[:, self.order[start:stop]] = codes.to(torch.uint8).transpose(0, 1)


def _responses(carry: Tensor, size: int) -> Tensor:
    """(T^-1 - I) of every group's diagonal block T of carry, (groups, size, size)."""
    blocks = torch.stack([carry[i : i + size, i : i + size] for i in range(0, len(carry), size)])
    identity = torch.eye(size, dtype=carry.dtype, device=carry.device)
    inverse = torch.linalg.solve_triangular(blocks, identity, upper=False, unitriangular=True)
    return torch.sub(inverse, identity)


def solve(
    weights: Sequence[Tensor],
    factor: Factor,
    widths: Sequence[int],
    ranges: Ranges,
    dtype: torch.dtype = torch.float32,
) -> list[dict[int, QuantizedWeight]]:
    """Codes at every width of weights (out, in) that read the inputs of `factor`.

    dtype: of the computation. ValueError for weights that are not finite, and for a group_size
    that does not divide the inputs.
    """
    stacked = torch.cat(list(weights)) if len(weights) > 1 else weights[0]  # (rows of all, in)
    columns = stacked.shape[1]
    size = ranges.group_size or columns
    if not bool(torch.isfinite(stacked.sum(dtype=torch.float64))):
        raise ValueError("weight: some of its values are not finite numbers")
    if columns % size:
        raise ValueError(f"group_size: {size} does not divide {columns} inputs")
    carry = factor.carry.to(dtype)
    of_rows = carry.new_tensor(widths)[:, None]  # (widths, 1), broadcasts with (groups, 1, rows)
    height = max(1, TILE_BYTES // (carry.element_size() * columns * len(widths)))
    codes = stacked.new_empty(len(widths), *stacked.shape, dtype=torch.uint8)
    grids: list[list[Tensor]] = []
    for rows, places in zip(
        torch.split(stacked, height), torch.split(codes, height, 1), strict=True
    ):
        results, *grid = _Tile(rows, factor, carry, ranges, of_rows).solve()
        for place, one in zip(places, results, strict=True):
            place.copy_(one.T)  # much slower for all widths at once
        grids.append(grid)
    scale, zero_point = (torch.cat(results, -1) for results in zip(*grids, strict=True))
    group_of = (torch.argsort(factor.order) // size).to(torch.int32)  # groups in rounding order
    contiguous = ranges.static_groups or bool((group_of.diff() >= 0).all())
    index, start = None if contiguous else group_of, 0
    solved: list[dict[int, QuantizedWeight]] = []
    for weight in weights:
        solved.append({})
        own = slice(start, start + len(weight))
        for place, bits in enumerate(widths):
            s, z = (t[:, place, own].T.contiguous() for t in (scale, zero_point))
            c = codes[place, own]
            solved[-1][bits] = compact(
                c, s, z, size, bits, ranges.mapping, ranges.scale_dtype, group_index=index
            )
        start += len(weight)
    return solved


# --- the plugin ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Gptq(CalibratedQuantizer):
    """GPTQ by this project's own solver, for all widths and all layers with the same inputs.

    group_size: 0 is one range per row. damping: share of the mean diagonal of X^T X that is added
    to it. act_order: inputs with the largest squares first. static_groups: ranges of the original
    weights. scale_dtype: dtype in which scales are rounded and stored.
    """

    version: ClassVar[int] = 1

    group_size: int = 0
    symmetric: bool = False
    damping: float = 0.01
    act_order: bool = True
    static_groups: bool = True
    scale_dtype: ScaleDtype = "float16"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.damping <= 1:
            raise ValueError(f"damping: {self.damping} is not between 0 and 1")

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes of the nearest weights, for a layer that no calibration input reached."""
        mapping, dtype = MappingType.of(self.symmetric), SCALE_DTYPES[self.scale_dtype]
        return round_to_nearest(weight, bits, self.group_size, mapping, dtype)

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Codes, zero points, scales and, if groups are not contiguous, the group of each input.

        A layer that is rounded to nearest has contiguous groups.
        """
        mapping, dtype = MappingType.of(self.symmetric), SCALE_DTYPES[self.scale_dtype]
        scattered = self.act_order and not self.static_groups and 0 < self.group_size < shape[1]
        own = planned_bits(shape, bits, self.group_size, mapping, dtype)
        return own + (32 * shape[1] if scattered else 0)

    def solve(
        self, weights: Sequence[Tensor], inputs: "LayerInputs", widths: Sequence[int]
    ) -> list[dict[int, Solved]]:
        """Codes that minimize the output error for these inputs, for every weight and width."""
        factor = factorize(inputs.gram, self.damping, self.act_order, torch.float32)
        note = self._note(factor)
        mapping, dtype = MappingType.of(self.symmetric), SCALE_DTYPES[self.scale_dtype]
        ranges = Ranges(self.group_size, mapping, self.static_groups, dtype)
        solved = solve(weights, factor, widths, ranges)
        return [{bits: Solved(codes, note) for bits, codes in one.items()} for one in solved]

    def _note(self, factor: Factor) -> str:
        if bool(factor.dead.all()):
            return "the calibration inputs are all zero or overflow: rounded to nearest"
        if factor.damping is None:
            return "no damping makes X^T X positive definite: rounded to nearest"
        if factor.damping > self.damping:
            return f"damping raised from {self.damping:g} to {factor.damping:g}"
        return ""
