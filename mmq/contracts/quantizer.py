"""What a quantizer implements: weights become codes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from mmq.errors import InputError
from mmq.tensors.quantized_weight import QuantizedWeight

if TYPE_CHECKING:
    from mmq.tensors.layer_inputs import LayerInputs


PROBED = 64  # rows of a random weight that is quantized to see what is stored


@dataclass(frozen=True)
class Quantizer(ABC):
    """Turns a weight into codes. Subclasses are frozen dataclasses; fields are options.

    What a quantizer computed is used again for the same options, distribution version and module
    source: raise the distribution's version when code outside that module changes the codes.
    """

    version: ClassVar[int] = 1  # raise it with every change that gives other codes
    calibrated: ClassVar[bool] = False  # True: looks at calibration pairs

    def __post_init__(self) -> None:
        group_size = getattr(self, "group_size", 0)
        if group_size < 0:
            raise ValueError(f"group_size: {group_size} is negative; 0 is one group a row")

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """Refuse a layer that cannot be quantized, by InputError, before any model is loaded."""
        group_size = getattr(self, "group_size", 0)
        if group_size > 0 and shape[1] % group_size:
            raise InputError(
                f"group_size: {group_size} does not divide the {shape[1]} inputs of {name}; "
                f"choose a divisor, or 0 for one group a row"
            )

    @abstractmethod
    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes with `bits` bits (2-8) of a weight (out, in) of any float dtype."""

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Bits that a weight (out, in) will take, scales and the like included, before it is read.

        Budgets are planned with it. Override it where there is a formula: here two random weights
        with a few rows are quantized, and the size is extrapolated, as it is linear in the rows.
        Where the size depends on the weights, it is that of ordinary ones.
        """
        generator = torch.Generator().manual_seed(0)
        few, more = (
            self.quantize(torch.randn(n, shape[1], generator=generator), bits).stored_bits
            for n in (PROBED, 2 * PROBED)
        )
        return few + (shape[0] - PROBED) * (more - few) // PROBED


@dataclass(frozen=True, slots=True)
class Solved:
    """A weight's codes, and what there is to say about how they were found ("": nothing)."""

    weight: QuantizedWeight
    note: str = ""


@dataclass(frozen=True)
class CalibratedQuantizer(Quantizer):
    """A quantizer that looks at what its layers read; `quantize` serves those that read nothing.

    calibration_inputs: with full_precision every layer's inputs come from the unquantized model;
    with quantized they come from a model that is quantized, at the same width, up to that layer.
    """

    calibrated: ClassVar[bool] = True
    sampled_inputs: ClassVar[int] = 0  # how many inputs `solve` wants to see, beside their sums

    calibration_inputs: Literal["full_precision", "quantized"] = "full_precision"

    @property
    def folds(self) -> bool:
        """Whether `inputs.foldable` must be known: input scales may be powers of two then."""
        return False

    @abstractmethod
    def solve(
        self, weights: Sequence[Tensor], inputs: "LayerInputs", widths: Sequence[int]
    ) -> list[dict[int, Solved]]:
        """Codes for every width, a dict a weight (out, in): all of them read these inputs."""
