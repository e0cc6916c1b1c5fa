"""A checkpoint in transformers' layout: the source's, with some weights stored differently."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mmq.contracts.target import ExportedLayer, ExportSource, WeightSpec
from mmq.export.checkpoint_writer import (
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
from mmq.models.checkpoint_weights import stored_weights
from mmq.system.atomic import sync
from mmq.system.disk import naming

Outlines = Callable[[str, tuple[int, int], WeightSpec], tuple[Outline, ...]]


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
        stored = stored_weights(self.source.folder) or {}
        return SourceCheckpoint(self.source.folder, stored, self.source.stored)

    def shards(self) -> list[Shard]:
        """The files with weights: quantized layers in the model's order, then other tensors."""
        checkpoint, source = self.checkpoint, self.source
        units, replaced = [], set()
        for component in source.skeleton.components.values():
            for layer in component.layers:
                if layer.name in source.specs:
                    weight = checkpoint.weight_name(layer.name)
                    outlines = self.outlines(weight, layer.shape, source.specs[layer.name])
                    units.append(Unit(outlines, layer.name))
                    replaced.add(weight)
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
        encode: Callable[[str, ExportedLayer], Mapping[str, Tensor]],
        change: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
    ) -> None:
        """Write all files; complete shards of a killed export are kept.

        encode(name, layer): the tensors that `outlines` named. change(name, tensor): what to
        write for any other tensor; called after all layers. One layer is in memory at a time.
        """
        checkpoint, shards, stream = self.checkpoint, self.shards(), iter(layers)
        for shard in shards:
            if (folder / shard.name).exists():  # from a killed export: files appear whole
                _skip(shard, stream)
                continue
            with ShardWriter(folder, shard) as file:
                for unit in shard.units:
                    if unit.layer:
                        layer = next(each for each in stream if each.name == unit.layer)
                        file.add(encode(checkpoint.weight_name(unit.layer), layer))
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

    def _config_text(self) -> str:
        return json.dumps(dict(self.config), indent=2) + "\n"


def source_config(source: ExportSource) -> dict[str, Any]:
    """The source's config.json."""
    config: dict[str, Any] = json.loads((source.folder / CONFIG).read_bytes())
    return config


def _skip(shard: Shard, stream: Iterator[ExportedLayer]) -> None:
    for unit in shard.units:
        if unit.layer:
            next(each for each in stream if each.name == unit.layer)
