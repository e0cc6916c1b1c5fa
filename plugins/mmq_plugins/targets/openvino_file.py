"""OpenVINO's files: an .xml with the graph, and a .bin that is written constant by constant."""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from mmq.system.atomic import sync
from mmq.system.disk import naming
from mmq_plugins.targets.openvino_storage import padded

CONSTANT = re.compile(
    r'(<layer id="\d+" name="(?P<name>[^"]*)" type="Const".*?<data [^>]*?)'
    r'offset="\d+" size="(?P<size>\d+)"',
    re.DOTALL,
)
INLINE = "constant:"  # starts the names of constants whose values are in the graph


@dataclass(slots=True)
class Places:
    """Where each constant is in a .bin: (offset, bytes) by name."""

    end: int = 0
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, name: str, size: int) -> int:
        """The offset of a new constant."""
        offset = self.end
        self.places[name] = offset, size
        self.end += padded(size)
        return offset

    def finish(self, model: Any) -> tuple[str, dict[int, bytes]]:
        """The .xml of a model, and the values by offset that its own constants still need."""
        values: dict[int, bytes] = {}
        offsets: dict[bytes, int] = {}
        for name, data in _inline(model, self.places).items():
            if data not in offsets:
                offsets[data] = self.add(name, len(data))
                values[offsets[data]] = data
            self.places[name] = offsets[data], len(data)
        return _with_places(_xml(model), self.places), values


def _inline(model: Any, placed: Mapping[str, Any]) -> dict[str, bytes]:
    """Values of constants that have no place yet; they get names of their own."""
    values: dict[str, bytes] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant" and node.get_friendly_name() not in placed:
            name = f"{INLINE}{len(values)}"
            node.set_friendly_name(name)
            values[name] = np.array(node.data).tobytes()
    return values


def _xml(model: Any) -> str:
    """The graph as OpenVINO writes it; the values go nowhere."""
    from openvino.passes import Manager, Serialize

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "graph.xml"
        manager = Manager()
        manager.register_pass(Serialize(str(path), os.devnull))
        manager.run_passes(model)
        return path.read_text()


def _with_places(xml: str, places: Mapping[str, tuple[int, int]]) -> str:
    used: set[str] = set()

    def placed(match: re.Match[str]) -> str:
        name = match["name"]
        offset, size = places[name]
        if size != int(match["size"]):
            raise RuntimeError(f"{name} takes {match['size']} bytes in the graph, not {size}")
        used.add(name)
        return f'{match[1]}offset="{offset}" size="{size}"'

    text = CONSTANT.sub(placed, xml)
    if len(used) != xml.count('type="Const"'):
        raise RuntimeError("the graph has constants that were not placed")
    return text


class IrFile:
    """Writes a .bin, then its .xml; both appear under their names at the end of the block."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder, self._stem = folder, stem
        self._aside = folder / f"{stem}.bin.unfinished"
        self._places = Places()

    def __enter__(self) -> Self:
        with naming(self._aside):
            self._file = self._aside.open("wb", buffering=0)
        return self

    def __exit__(self, *details: object) -> None:
        self._file.close()
        self._aside.unlink(missing_ok=True)

    def add(self, name: str, data: bytes) -> None:
        """Write a constant; an OSError names the file."""
        self._write(self._places.add(name, len(data)), data)

    def _write(self, offset: int, data: bytes) -> None:
        rest = memoryview(data + bytes(padded(len(data)) - len(data)))
        with naming(self._aside, len(rest)):
            self._file.seek(offset)
            while rest:
                rest = rest[self._file.write(rest) :]

    def finish(self, model: Any) -> None:
        """Write the rest of a model whose weights were added, and give the files their names."""
        xml, values = self._places.finish(model)
        for offset, data in values.items():
            self._write(offset, data)
        graph = self._folder / f"{self._stem}.xml"
        with naming(graph, len(xml)):
            graph.write_text(xml)
            sync(graph)
            os.fsync(self._file.fileno())
            self._aside.replace(self._folder / f"{self._stem}.bin")
