"""GPTQ by the package auto_gptq: its own solver, applied to our weights and inputs.

This runs auto_gptq's `GPTQ.fasterquant`, which also chooses the ranges with its own Quantizer, in
float32, once per weight and width. The sums over the inputs are computed here instead of by
`GPTQ.add_batch`. The package's models, kernels and file formats are not used. The solver runs on
the weight's device, a GPU or a CPU; it ends with `torch.cuda.synchronize`, which is replaced by a
no-op while it runs on a CPU.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mmq.contracts.quantizer import CalibratedQuantizer, Solved
from mmq.tensors.affine import MappingType
from mmq.tensors.quantized_weight import QuantizedWeight, compact, planned_bits, round_to_nearest
from mmq_plugins.quantizers.legacy import check_installed, load_solver

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from mmq.tensors.layer_inputs import LayerInputs


@contextlib.contextmanager
def _synchronizable(device: torch.device) -> Iterator[None]:
    """Replace torch.cuda.synchronize by a no-op unless the device is a GPU."""
    original = torch.cuda.synchronize
    if device.type != "cuda":
        torch.cuda.synchronize = lambda *_: None
    try:
        yield
    finally:
        torch.cuda.synchronize = original


@dataclass(frozen=True)
class AutoGptq(CalibratedQuantizer):
    """GPTQ as computed by auto_gptq 0.7.1.

    group_size: 0 is one range per row. symmetric: auto_gptq clips the upper half of groups without
    a negative weight. damping: share of the Hessian's mean diagonal that is added to it.
    act_order: inputs with the largest squares first. static_groups: ranges of the original
    weights. Weights of inputs that are always zero become zero.
    """

    version: ClassVar[int] = 1

    group_size: int = 0
    symmetric: bool = False
    damping: float = 0.01
    act_order: bool = False
    static_groups: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.damping <= 1:
            raise ValueError(f"damping: {self.damping} is not between 0 and 1")

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """InputError without the package, or for groups that do not divide the inputs."""
        check_installed("auto_gptq")
        super().check(name, shape)

    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes of the nearest weights, for a layer that no calibration input reached."""
        return round_to_nearest(weight, bits, self.group_size, MappingType.of(self.symmetric))

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Codes, zero points, float32 scales and, if groups are not contiguous, their index.

        A layer that is rounded to nearest takes less: float16 scales, contiguous groups.
        """
        mapping = MappingType.of(self.symmetric)
        scattered = self.act_order and not self.static_groups and 0 < self.group_size < shape[1]
        own = planned_bits(shape, bits, self.group_size, mapping, torch.float32)
        return own + (32 * shape[1] if scattered else 0)

    def solve(
        self, weights: Sequence[Tensor], inputs: "LayerInputs", widths: Sequence[int]
    ) -> list[dict[int, Solved]]:
        """Codes of auto_gptq: one call of its solver per weight and width."""
        solver = load_solver("auto_gptq.quantization.gptq").GPTQ
        gram = inputs.gram
        return [
            {bits: self._solve(solver, weight, gram, inputs.count, bits) for bits in widths}
            for weight in weights
        ]

    def _solve(self, solver: Any, weight: Tensor, gram: Tensor, count: int, bits: int) -> Solved:
        if not bool(gram.diagonal().any()):
            why = "the calibration inputs are all zero: rounded to nearest"
            return Solved(self.quantize(weight, bits), why)
        try:
            codes = self._run(solver, weight, gram * (2 / count), bits)
        except LinAlgError:
            why = f"auto_gptq found no finite solution at damping {self.damping:g}"
            return Solved(self.quantize(weight, bits), f"{why}: rounded to nearest")
        patched = "solved without a GPU, torch.cuda.synchronize replaced by nothing"
        return Solved(codes, "" if weight.device.type == "cuda" else patched)

    def _run(self, solver: Any, weight: Tensor, hessian: Tensor, bits: int) -> QuantizedWeight:
        """The codes of the weight that the solver writes into a linear layer."""
        rows, columns = weight.shape
        layer = nn.Linear(columns, rows, bias=False, device="meta")
        layer.weight = nn.Parameter(weight.detach().float().clone(), requires_grad=False)
        gptq = solver(layer)
        gptq.quantizer.configure(bits, perchannel=True, sym=self.symmetric, mse=False)
        gptq.H, gptq.nsamples = hessian, 1  # H is overwritten; nsamples is only logged
        with _synchronizable(weight.device):
            scale, zero_point, index = gptq.fasterquant(
                percdamp=self.damping,
                group_size=self.group_size or -1,
                actorder=self.act_order,
                static_groups=self.static_groups,
            )
        if not bool(
            torch.isfinite(layer.weight).all()
        ):  # for example, after an overflow in the Hessian
            raise LinAlgError("the solver's weights are not finite")
        groups = index.long()
        codes = (layer.weight / scale[:, groups]).round_() + zero_point[:, groups]
        contiguous = bool((index.diff() >= 0).all())
        return compact(
            codes.to(torch.uint8),
            scale,
            zero_point,
            self.group_size or columns,
            bits,
            MappingType.of(self.symmetric),
            torch.float32,
            group_index=None if contiguous else index,
        )
