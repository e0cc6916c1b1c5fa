"""OpenVINO's files: an .xml with the graph, and a .bin that is written constant by constant."""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np

from mmq.system.atomic import sync
from mmq.system.disk import naming, write_all
from mmq_plugins.targets.openvino_storage import padded

CONSTANT = re.compile(
    r'(<layer id="\d+" name="(?P<name>[^"]*)" type="Const".*?<data [^>]*?)'
    r'offset="\d+" size="(?P<size>\d+)"',
    re.DOTALL,
)
FILES = "openvino_*.xml"
FUSED = "fused_names"  # begins the key of the names of the nodes that became one
TOKENIZERS = ("openvino_tokenizer", "openvino_detokenizer")
INLINE = "constant:"  # starts the names of constants whose values are in the graph


def graph_files(folder: Path) -> list[Path]:
    """The graphs in a folder, but those of a tokenizer, which have operations of their own."""
    return [path for path in sorted(folder.glob(FILES)) if path.stem not in TOKENIZERS]


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

    def finish(self, model: Any) -> tuple[str, dict[int, Any]]:
        """The .xml of a model, and those of its constants, by offset, that are not written yet."""
        _number(model)
        constants: dict[int, Any] = {}
        offsets: dict[bytes, int] = {}
        for name, node in _inline(model, self.places).items():
            data = values_of(node)
            digest = blake2b(data).digest()
            if digest not in offsets:
                offsets[digest] = self.add(name, len(data))
                constants[offsets[digest]] = node
            self.places[name] = offsets[digest], len(data)
        return _with_places(_xml(model), self.places), constants


def _number(model: Any) -> None:
    """Number the model and the nodes that OpenVINO named after a counter of its process.

    The names of nodes that became one, which OpenVINO notes for debugging, are dropped. The same
    model is then the same file, of the planned size.
    """
    model.set_friendly_name("model")
    for number, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{kind}_{number}")
        info = node.get_rt_info()
        for key in [key for key in info.keys() if key.startswith(FUSED)]:  # noqa: SIM118
            del info[key]


def values_of(node: Any) -> memoryview:
    """The bytes of a constant's values, not copied."""
    return np.ascontiguousarray(node.data).reshape(-1).view(np.uint8).data


def _inline(model: Any, placed: Mapping[str, Any]) -> dict[str, Any]:
    """Constants that have no place yet; they get names of their own."""
    constants: dict[str, Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant" and node.get_friendly_name() not in placed:
            name = f"{INLINE}{len(constants)}"
            node.set_friendly_name(name)
            constants[name] = node
    return constants


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

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        with naming(self._aside, padded(len(data))):
            self._file.seek(offset)
            write_all(self._file, memoryview(data))
            write_all(self._file, bytes(padded(len(data)) - len(data)))

    def finish(self, model: Any) -> None:
        """Write the rest of a model whose weights were added, and give the files their names."""
        xml, constants = self._places.finish(model)
        for offset, node in constants.items():
            self._write(offset, values_of(node))
        graph = self._folder / f"{self._stem}.xml"
        with naming(graph, len(xml)):
            graph.write_text(xml)
            sync(graph)
            os.fsync(self._file.fileno())
            self._aside.replace(self._folder / f"{self._stem}.bin")
