"""A checkpoint in transformers' layout: the source's, with some weights stored differently."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from mmq.contracts.target import ExportedLayer, ExportSource, WeightSpec
from mmq.export.checkpoint_writer import (
    DTYPE_OF,
    SHARD_BYTES,
    Outline,
    Shard,
    ShardWriter,
    Unit,
    index_text,
    plan_shards,
    write_index,
)
from mmq.export.side_files import CONFIG, copy_side_files, side_files
from mmq.export.source_checkpoint import SourceCheckpoint
from mmq.system.atomic import sync
from mmq.system.disk import naming

Outlines = Callable[[str, tuple[int, ...], WeightSpec], tuple[Outline, ...]]
Encode = Callable[[str, ExportedLayer], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class NewCheckpoint:
    """The files of a checkpoint whose quantized layers are stored in other tensors.

    outlines(name, shape, spec): a layer's tensors, given the name of its weight in the source.
    config: the new config.json. All other tensors keep their names, so that engines that read the
    source find them.
    """

    source: ExportSource
    outlines: Outlines
    config: Mapping[str, Any]
    shard_bytes: int = SHARD_BYTES

    @property
    def checkpoint(self) -> SourceCheckpoint:
        """The source's tensors."""
        return SourceCheckpoint.of(self.source)

    def shards(self) -> list[Shard]:
        """The files with weights: quantized layers in the model's order, then other tensors."""
        checkpoint, source = self.checkpoint, self.source
        units: list[Unit] = []
        replaced: dict[str, int] = {}  # the number of its unit, by tensor
        for component in source.skeleton.components.values():
            for layer in component.layers:
                if layer.name not in source.specs:
                    continue
                names = checkpoint.tensors_of(layer)
                if names[0] in replaced:  # a tensor of several experts
                    unit = units[replaced[names[0]]]
                    units[replaced[names[0]]] = replace(unit, layers=(*unit.layers, layer.name))
                    continue
                spec, is_expert = source.specs[layer.name], layer.matrix.expert is not None
                shapes = [checkpoint.stored[n].shape if is_expert else layer.shape for n in names]
                outlines = (self.outlines(*pair, spec) for pair in zip(names, shapes, strict=True))
                replaced |= dict.fromkeys(names, len(units))
                units.append(Unit(tuple(chain.from_iterable(outlines)), (layer.name,)))
        others = (item for item in checkpoint.stored.items() if item[0] not in replaced)
        for name, stored in others:
            units.append(Unit((Outline(name, stored.dtype, stored.shape),)))
        return plan_shards(units, self.shard_bytes)

    def bytes(self) -> int:
        """Bytes of all files, before any is written."""
        shards = self.shards()
        weights = sum(shard.bytes for shard in shards)
        index = len(index_text(shards)) if len(shards) > 1 else 0
        beside = sum(path.stat().st_size for _, path in side_files(self.source.folder))
        return weights + index + beside + len(self._config_text())

    def write(
        self,
        layers: Iterable[ExportedLayer],
        folder: Path,
        encode: Encode,
        change: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
    ) -> None:
        """Write all files; complete shards of a killed export are reused.

        encode(name, layer): the tensors that `outlines` named; of an expert, a tensor `name` with
        its matrix (out, in). change(name, tensor): what to write for any other tensor; called
        after all layers. One layer is in memory at a time, or the experts of one tensor.
        """
        checkpoint, shards, stream = self.checkpoint, self.shards(), iter(layers)
        for shard in shards:
            if (folder / shard.name).exists():  # from a killed export: files appear when complete
                _skip(shard, stream)
                continue
            with ShardWriter(folder, shard) as file:
                for unit in shard.units:
                    if unit.layers:
                        layers = _next(unit, stream)
                        file.add(self._encoded(unit, layers, encode))
                    else:
                        (outline,) = unit.outlines
                        tensor = checkpoint.tensor(outline.name)
                        file.add({outline.name: change(outline.name, tensor)})
        write_index(folder, shards)
        copy_side_files(self.source.folder, folder)
        with naming(folder / CONFIG):
            (folder / CONFIG).write_text(self._config_text())
        for path in folder.rglob("*"):
            sync(path)

    def _encoded(
        self, unit: Unit, layers: Iterator[ExportedLayer], encode: Encode
    ) -> Mapping[str, Tensor]:
        """The tensors of a unit: those of one layer, or of the experts that share them."""
        checkpoint = self.checkpoint
        parameter = unit.layers[0].rpartition(".")[0]
        if parameter not in checkpoint.experts:
            (layer,) = layers
            return encode(checkpoint.weight_name(layer.name), layer)
        transposed = self.source.skeleton.layer(unit.layers[0]).matrix.transposed
        tensors = {o.name: checkpoint.tensor(o.name).to(DTYPE_OF[o.dtype]) for o in unit.outlines}
        for layer in layers:
            stack, expert = checkpoint.stack_of(layer.name)
            matrix = encode(parameter, layer)[parameter]
            stack.fill_(tensors, expert, matrix.T if transposed else matrix)
        return tensors

    def _config_text(self) -> str:
        return json.dumps(dict(self.config), indent=2) + "\n"


def source_config(source: ExportSource) -> dict[str, Any]:
    """The source's config.json."""
    config: dict[str, Any] = json.loads((source.folder / CONFIG).read_bytes())
    return config


def _skip(shard: Shard, stream: Iterator[ExportedLayer]) -> None:
    for unit in shard.units:
        for _ in _next(unit, stream):
            pass


def _next(unit: Unit, stream: Iterator[ExportedLayer]) -> Iterator[ExportedLayer]:
    """A unit's layers from the stream, which has them in the same order."""
    for name in unit.layers:
        yield next(layer for layer in stream if layer.name == name)
