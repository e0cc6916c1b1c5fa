"""Quantized blocks on disk: content-addressed, written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from mmq.quantized import QuantizedWeight


def digest(value: Any) -> str:
    """A short stable hash of plain data (dicts, lists, numbers, strings)."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class ArtifactKey:
    """Everything that the codes of a component's block depend on."""

    model: str
    component: str
    quantizer: str
    quantizer_origin: str
    options: tuple[tuple[str, Any], ...]
    bits: int
    block: int
    calibration: str | None = None

    @property
    def name(self) -> str:
        """File name of the artifact, without its ending."""
        part = f"{self.component}-{self.block}"
        return f"{part}-{self.quantizer}-{self.bits}bit-{digest(asdict(self))}"


class Store:
    """A folder of quantized blocks."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: ArtifactKey) -> dict[str, QuantizedWeight] | None:
        """Weights by layer name, or None if this artifact was never stored."""
        path = self._path(key)
        if not path.exists():
            return None
        layers: dict[str, dict[str, Any]] = {}
        for full, tensor in load_file(path).items():
            layer, _, part = full.rpartition("/")
            layers.setdefault(layer, {})[part] = tensor
        return {layer: QuantizedWeight.from_tensors(parts) for layer, parts in layers.items()}

    def put(self, key: ArtifactKey, weights: Mapping[str, QuantizedWeight]) -> None:
        """Store a block's weights; a killed process leaves no half-written artifact."""
        self.root.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{layer}/{part}": tensor.cpu()
            for layer, weight in weights.items()
            for part, tensor in weight.to_tensors().items()
        }
        path = self._path(key)
        aside = path.with_suffix(f".{os.getpid()}.tmp")
        save_file(tensors, aside, metadata={"key": json.dumps(asdict(key))})
        aside.replace(path)

    def _path(self, key: ArtifactKey) -> Path:
        return self.root / f"{key.name}.safetensors"
