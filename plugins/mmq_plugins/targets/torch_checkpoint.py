"""The simulated model as a plain checkpoint, for any engine that reads the source."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
from mmq.export.checkpoint_writer import DTYPE_OF, DTYPES, Outline
from mmq.export.commands import transformers_command
from mmq.export.facts import file_sizes, task, trial_dtype
from mmq.export.side_files import link_checkpoint
from mmq.export.source_checkpoint import read_tensor
from mmq.models.checkpoint_names import stored_names
from mmq.models.checkpoint_weights import stored_weights
from mmq.models.components import find_components
from mmq.models.loading import load_model, read_config
from mmq.models.skeleton import family_of, on_meta


@dataclass(frozen=True)
class TorchCheckpoint(Target):
    """Dequantized weights in place of the source's: as large, and readable everywhere.

    dtype: of the stored weights; auto is that of the source's weights.
    """

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
        stored = stored_weights(source.folder) or {}
        first = next(iter(source.specs))
        return DTYPE_OF[stored[source.stored[f"{first}.weight"]].dtype]

    def _files(self, source: ExportSource) -> NewCheckpoint:
        name_of = DTYPES[self._dtype(source)]

        def outlines(name: str, shape: tuple[int, int], spec: WeightSpec) -> tuple[Outline, ...]:
            return (Outline(name, name_of, shape),)

        return NewCheckpoint(source, outlines, source_config(source))

    def read_back(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        """Weights read by safetensors, by their names in transformers."""
        config = read_config(str(folder))
        family = family_of(config)
        module = on_meta(str(folder), family, config)
        layers = {
            layer.name
            for component in find_components(module, family).values()
            for layer in component.layers
        }
        stored = stored_weights(folder) or {}
        for parameter, name in stored_names(module, stored).items():
            layer = parameter.removesuffix(".weight")
            if layer in layers:  # an embedding in float32 would be larger than any block
                yield layer, read_tensor(folder, stored[name], name).float()

    def open(self, folder: Path, device: str) -> AbstractContextManager[VisionLanguageModel]:
        """The model in transformers, in the dtype of the trial."""
        return nullcontext(load_model(str(folder), trial_dtype(folder), device))

    def commands(self, folder: Path) -> Sequence[str]:
        """Commands that ask it in transformers and score it with mmq."""
        score = f"python -m mmq evaluate-baseline --model {folder} --task {task(folder)}"
        return transformers_command(folder), score
