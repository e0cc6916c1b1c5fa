"""Quantized blocks on disk: content-addressed, written whole or not at all."""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmq.quantized import QuantizedLayer, QuantizedWeight
from mmq.whole import whole

MEASURED = ("relative_error", "output_error", "note")


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
    layers: tuple[str, ...]  # their paths, which differ between versions of transformers
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

    def has(self, key: ArtifactKey) -> bool:
        """Whether this artifact was stored."""
        return self.path(key).exists()

    def get(self, key: ArtifactKey) -> dict[str, QuantizedLayer] | None:
        """Layers by name, or None if this artifact was never stored."""
        path = self.path(key)
        if not path.exists():
            return None
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["layers"])
            parts: dict[str, dict[str, Any]] = {name: {} for name in facts}
            for full in file.keys():  # noqa: SIM118  (a reader, no mapping)
                layer, _, part = full.rpartition("/")
                parts[layer][part] = file.get_tensor(full)
        return {
            name: QuantizedLayer(QuantizedWeight.from_tensors(parts[name]), **found)
            for name, found in facts.items()
        }

    def seconds(self, key: ArtifactKey) -> float | None:
        """What it took to compute a stored artifact; None where that was not measured."""
        with safe_open(self.path(key), framework="pt") as file:
            spent = file.metadata().get("seconds")
        return None if spent is None else float(spent)

    def put(
        self, key: ArtifactKey, layers: Mapping[str, QuantizedLayer], seconds: float | None = None
    ) -> None:
        """Store a block's layers; a killed process leaves no half-written artifact."""
        tensors = {
            f"{name}/{part}": tensor.cpu()
            for name, layer in layers.items()
            for part, tensor in layer.weight.to_tensors().items()
        }
        facts = {
            name: {part: getattr(layer, part) for part in MEASURED}
            for name, layer in layers.items()
        }
        metadata = {"key": json.dumps(asdict(key)), "layers": json.dumps(facts)}
        sealed = {**metadata, "sha256": content_hash(tensors, metadata)}
        if seconds is not None:  # not sealed: the same artifact may take longer
            sealed["seconds"] = f"{seconds:.6f}"
        with whole(self.path(key)) as aside:
            save_file(tensors, aside, metadata=sealed)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep other processes out of such blocks of this name; a killed one leaves no lock."""
        path = self.root / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def entries(self) -> "list[Entry]":
        """Everything that is stored, by name; what cannot be read has a problem."""
        return [_entry(path) for path in sorted(self.root.glob("*.safetensors"))]

    def path(self, key: ArtifactKey) -> Path:
        """Where an artifact is, or would be."""
        return self.root / f"{key.name}.safetensors"


@dataclass(frozen=True, slots=True)
class Entry:
    """An artifact's file: its key's facts, its size in bytes, and what is wrong with it."""

    path: Path
    key: Mapping[str, Any]
    size: int
    modified: float  # seconds since the epoch
    problem: str = ""

    def verify(self) -> str:
        """What is wrong with the file, all of it read; "" if it holds what was stored."""
        if self.problem:
            return self.problem
        with safe_open(self.path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if content_hash(tensors, metadata) != metadata["sha256"]:
            return "its contents are not those that were stored"
        return ""


def _entry(path: Path) -> Entry:
    found = path.stat()
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        key, problem = json.loads(metadata["key"]), ""
        if not {"layers", "sha256"} <= metadata.keys():
            problem = "it was written by another version of mmq"
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        key, problem = {}, f"it cannot be read ({type(error).__name__}: {error})"
    return Entry(path, key, found.st_size, found.st_mtime, problem)


def content_hash(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A hash of an artifact's tensors and of what is said about them."""
    return tensor_hash(tensors, json.dumps([metadata["key"], metadata["layers"]]))


def tensor_hash(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """A hash of tensors with their names, types and shapes, and of a text about them."""
    sha = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
