"""The simulated model as a plain checkpoint, for any engine that reads the source."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mmq.contracts.target import (
    ExportedLayer,
    ExportReport,
    ExportSource,
    Target,
    WeightSpec,
)
from mmq.contracts.vlm import VisionLanguageModel
from mmq.export.checkpoint import NewCheckpoint, source_config
from mmq.export.checkpoint_writer import DTYPES, Outline
from mmq.export.commands import transformers_command
from mmq.export.facts import file_sizes, read_facts, task, trial_dtype
from mmq.export.side_files import link_checkpoint
from mmq.export.source_checkpoint import SourceCheckpoint, read_tensor
from mmq.models.checkpoint_names import conversions, stored_names
from mmq.models.checkpoint_weights import stored_weights
from mmq.models.components import Component, Layer, find_components
from mmq.models.loading import load_model, read_config
from mmq.models.optional_parts import named_parts, with_parts
from mmq.models.skeleton import family_of, on_meta


@dataclass(frozen=True)
class TorchCheckpoint(Target):
    """Dequantized weights in place of the source's: as large, and readable everywhere.

    dtype: of the stored weights; auto is that of the source's weights.
    """

    experts: ClassVar[bool] = True
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"

    def refusal(self, spec: WeightSpec, shape: tuple[int, int], component: str) -> str:
        """No weight is refused: a dequantized one is an ordinary weight."""
        return ""

    def stored_bits(self, shape: tuple[int, int], spec: WeightSpec) -> float:
        """Bits of a plain weight."""
        return float(shape[0] * shape[1] * (32 if self.dtype == "float32" else 16))

    def planned_bytes(self, source: ExportSource) -> int:
        """Bytes of all files."""
        return self._files(source).bytes()

    def export(
        self, source: ExportSource, layers: Iterable[ExportedLayer], folder: Path
    ) -> ExportReport:
        """Write the checkpoint with dequantized weights, rounded to one dtype."""
        dtype = self._dtype(source)

        def encode(name: str, layer: ExportedLayer) -> Mapping[str, Tensor]:
            assert not isinstance(layer.weight, Tensor)
            return {name: layer.weight.dequantize().to(dtype)}

        self._files(source).write(layers, folder, encode)
        short = str(dtype).removeprefix("torch.")
        notes = ["Dequantized weights: the files are as large as the source's."]
        if dtype != torch.float32:
            notes.append(
                f"Weights are rounded to {short}: answers may differ from those of the simulated "
                f"model in {source.dtype}."
            )
        stored = dict.fromkeys(source.specs, short)
        return ExportReport(file_sizes(folder), stored, tuple(notes), precision=short)

    def export_unquantized(self, source: ExportSource, folder: Path) -> None:
        """Links to the source's files, which transformers opens as they are."""
        link_checkpoint(source.folder, folder)

    def _dtype(self, source: ExportSource) -> torch.dtype:
        if self.dtype != "auto":
            dtype: torch.dtype = getattr(torch, self.dtype)
            return dtype
        first = source.skeleton.layer(next(iter(source.specs)))
        stored = SourceCheckpoint.of(source).dtype(first)
        assert stored is not None  # the plan has checked it
        return stored

    def _files(self, source: ExportSource) -> NewCheckpoint:
        name_of = DTYPES[self._dtype(source)]

        def outlines(name: str, shape: tuple[int, ...], spec: WeightSpec) -> tuple[Outline, ...]:
            return (Outline(name, name_of, shape),)

        return NewCheckpoint(source, outlines, source_config(source))

    def read_back(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        """Weights read by safetensors, by their names in transformers, which converts experts."""
        config = read_config(str(folder))
        family = family_of(config)
        module = on_meta(str(folder), family, config)
        stored = stored_weights(folder) or {}
        names, converted = stored_names(module, stored), conversions(module, stored)

        def read(name: str) -> Tensor:
            return read_tensor(folder, stored[name], name)

        layers = find_components(module, family)
        parts = named_parts(",".join(read_facts(folder).get("allocation", ())))
        for parameter, matrices in _by_parameter(with_parts(module, layers, parts)).items():
            if parameter in names:
                tensor = read(names[parameter])
            elif parameter in converted:
                tensor = converted[parameter].convert(module, parameter, read)
            else:
                continue
            for layer in matrices:
                weight = tensor if layer.matrix.expert is None else tensor[layer.matrix.expert]
                yield layer.name, (weight.T if layer.matrix.transposed else weight).float()

    def open(self, folder: Path, device: str) -> AbstractContextManager[VisionLanguageModel]:
        """The model in transformers, in the dtype of the trial."""
        return nullcontext(load_model(str(folder), trial_dtype(folder), device))

    def commands(self, folder: Path) -> Sequence[str]:
        """Commands that ask it in transformers and score it with mmq."""
        score = f"python -m mmq evaluate-baseline --model {folder} --task {task(folder)}"
        return transformers_command(folder), score


def _by_parameter(components: Mapping[str, Component]) -> dict[str, list[Layer]]:
    """The layers by the name of their parameter: many experts share one."""
    layers: dict[str, list[Layer]] = {}
    for component in components.values():
        for layer in component.layers:
            owner = layer.name if layer.matrix.expert is None else layer.name.rpartition(".")[0]
            parameter = f"{owner}.weight" if layer.matrix.expert is None else owner
            layers.setdefault(parameter, []).append(layer)
    return layers
