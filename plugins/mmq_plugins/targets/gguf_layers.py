"""Map layers to tensors of GGUF files, in a file beside them, and read their weights back."""

import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmq.system.disk import naming
from mmq_plugins.targets.gguf_checkpoint import part_name
from mmq_plugins.targets.gguf_file import gguf_package
from mmq_plugins.targets.gguf_layout import Layout

NAME = "layers.json"


@dataclass(frozen=True, slots=True)
class LayerPlaces:
    """Tensors of layers. A tensor holds a layer's rows in an order, one of a few, or all as is.

    layers: by layer's name (file, tensor, number of the order or None). orders: lists of rows.
    """

    layers: dict[str, list[tuple[str, str, int | None]]]
    orders: list[list[int]]

    @classmethod
    def of(cls, layout: Layout, names: Iterable[str]) -> "LayerPlaces":
        """The places of these layers in a layout."""
        by_source: dict[str, list[Any]] = {}
        for place in layout.places:
            by_source.setdefault(place.source, []).append(place)
        numbers: dict[tuple[int, ...], int] = {}
        layers: dict[str, list[tuple[str, str, int | None]]] = {}
        for name in names:
            for place in by_source[f"{part_name(name)}.weight"]:
                order = None
                if place.rows is not None:
                    rows = tuple(place.rows.tolist())
                    order = numbers.setdefault(rows, len(numbers))
                layers.setdefault(name, []).append((place.file, place.name, order))
        return cls(layers, [list(rows) for rows in numbers])

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({"layers": self.layers, "orders": self.orders}) + "\n"

    def write(self, folder: Path) -> None:
        """Write it beside the GGUF files."""
        with naming(folder / NAME):
            (folder / NAME).write_text(self.to_json())

    @classmethod
    def read(cls, folder: Path) -> "LayerPlaces":
        """Read the file that `write` wrote."""
        facts = json.loads((folder / NAME).read_text())
        return cls(facts["layers"], facts["orders"])

    def weights(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        """Layers' weights, float32 (out, in), by gguf's reader and dequantizer."""
        gguf = gguf_package()
        files = {place[0] for places in self.layers.values() for place in places}
        readers = {name: gguf.GGUFReader(folder / name) for name in files}
        tensors = {
            (name, tensor.name): tensor for name in files for tensor in readers[name].tensors
        }
        for layer, places in self.layers.items():
            rows = sum(len(tensors[file, name].data) for file, name, _ in places)
            weight: np.ndarray | None = None
            for file, name, order in places:
                tensor = tensors[file, name]
                values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
                if weight is None:
                    weight = np.empty((rows, values.shape[1]), np.float32)
                weight[slice(None) if order is None else self.orders[order]] = values
            for reader in readers.values():
                forget_pages(reader)
            assert weight is not None
            yield layer, torch.from_numpy(weight)


def forget_pages(reader: Any) -> None:
    """Drop the pages of a reader's file that were read: they count as memory of this process."""
    mapped = getattr(reader.data, "_mmap", None)  # numpy has no public way
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
