"""Reports of how a model's layers were quantized."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LayerReport:
    """How one linear layer was quantized, or why it was not."""

    name: str
    component: str
    block: int
    layer_type: str
    shape: tuple[int, int]
    bits: int
    group_size: int | None = None
    stored_bits: int | None = None
    relative_error: float | None = None  # |W - Q|_F / |W|_F
    output_error: float | None = None  # |X (W - Q)^T|_F / |X W^T|_F, X: the calibration inputs
    note: str = ""
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class QuantReport:
    """The reports of all linear layers of all components."""

    layers: tuple[LayerReport, ...] = field(default=())

    def mean_errors(self) -> dict[str, float | None]:
        """Both errors, averaged over the layers that have them; None if no layer does."""
        return {
            kind: mean_known([getattr(layer, kind) for layer in self.layers])
            for kind in ("relative_error", "output_error")
        }


def mean_known(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None; None if there are none.

    >>> mean_known([1.0, None, 2.0])
    1.5
    """
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None
