"""What happened to the layers of a model."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What happened to one linear layer."""

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
    """Every linear layer of every component, quantized or with the reason why not."""

    layers: tuple[LayerReport, ...] = field(default=())
