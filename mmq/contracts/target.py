"""The interface of export targets: write, read and run an engine's checkpoint format."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from mmq.contracts.quantizer import Quantizer
from mmq.contracts.vlm import VisionLanguageModel
from mmq.tensors.quantized_weight import QuantizedWeight

if TYPE_CHECKING:
    from mmq.allocation.allocation import BitAllocation
    from mmq.models.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """How a weight is quantized, as far as it matters to a file format.

    group_size: inputs per scale; 0 is one group per row. per_tensor: one scale for all rows.
    """

    bits: int
    group_size: int = 0
    symmetric: bool = True
    per_tensor: bool = False
    integer_zero_points: bool = True
    input_scale: bool = False
    group_index: bool = False

    @classmethod
    def of(cls, weight: QuantizedWeight) -> "WeightSpec":
        """The spec of a quantized weight."""
        columns = weight.codes.shape[1]
        zero = weight.zero_point
        return cls(
            bits=weight.bits,
            group_size=0 if weight.group_size == columns else weight.group_size,
            symmetric=zero is None,
            per_tensor=tuple(weight.scale.shape) == (1, 1) and weight.codes.shape[0] > 1,
            integer_zero_points=zero is None or not zero.is_floating_point(),
            input_scale=weight.input_scale is not None,
            group_index=weight.group_index is not None,
        )


@dataclass(frozen=True, slots=True)
class ExportedLayer:
    """A linear layer to export; a Tensor is an unquantized weight."""

    name: str  # of the module in transformers
    component: str  # "" outside all components
    weight: QuantizedWeight | Tensor


@dataclass(frozen=True, slots=True)
class ExportSource:
    """The checkpoint that is exported: its folder, and the model without weights."""

    folder: Path
    skeleton: "Skeleton"
    dtype: str
    options: Mapping[str, str] = field(
        default_factory=dict
    )  # the target's own options, such as `from`


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written: bytes by file, how each layer is stored, and notes for readers."""

    files: Mapping[str, int]
    stored_as: Mapping[str, str]  # by layer
    notes: Sequence[str] = ()


class Target(ABC):
    """An engine's checkpoint format."""

    version: ClassVar[int] = 1  # raise it with every change that gives other files
    extra: ClassVar[str] = ""  # the extra of mmq that installs the engine; "" if none is needed

    @abstractmethod
    def refusal(self, spec: WeightSpec, shape: tuple[int, int], component: str) -> str:
        """Why the format or the installed engine does not support a weight; "" if it does."""

    @abstractmethod
    def stored_bits(self, shape: tuple[int, int], spec: WeightSpec) -> float:
        """Bits of a weight (out, in) in the format, scales and padding included."""

    @abstractmethod
    def check(
        self, allocation: "BitAllocation", quantizer: Quantizer, skeleton: "Skeleton"
    ) -> None:
        """Raise InputError, before loading anything, with the nearest supported options."""

    @abstractmethod
    def export(
        self, source: ExportSource, layers: Iterable[ExportedLayer], folder: Path
    ) -> ExportReport:
        """Write the model into an empty folder, one layer in memory at a time."""

    @abstractmethod
    def read_back(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        """Layer names and dequantized weights, float32, read by an independent reader."""

    @abstractmethod
    def open(self, folder: Path, device: str) -> AbstractContextManager[VisionLanguageModel]:
        """The exported model in its engine, closed at the end."""

    def commands(self, folder: Path) -> Sequence[str]:
        """Shell commands that run the exported model, for its model card."""
        return ()
