"""compressed-tensors checkpoints for vLLM, SGLang and transformers."""

import math
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
from mmq.errors import InputError
from mmq.export.checkpoint import NewCheckpoint, source_config
from mmq.export.checkpoint_writer import DTYPES, Outline
from mmq.export.commands import transformers_command
from mmq.export.facts import file_sizes
from mmq.export.folding import Folding
from mmq.export.side_files import link_checkpoint
from mmq.export.source_checkpoint import read_tensor
from mmq.models.checkpoint_weights import stored_weights
from mmq.tensors.quantized_weight import QuantizedWeight
from mmq_plugins.targets.ct_config import (
    Packing,
    group_of,
    quantization_config,
    read_groups,
)
from mmq_plugins.targets.ct_engines import ENGINES, VLLM, Engine
from mmq_plugins.targets.ct_model import open_model, parameter_names
from mmq_plugins.targets.ct_packing import WORD, pack, packed_width, unpack
from mmq_plugins.targets.vllm_engine import running
from mmq_plugins.targets.vllm_environment import PYTHON, vllm_python

PARTS = ("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape")


@dataclass(frozen=True)
class CompressedTensors(Target):
    """Codes packed into int32, one scale per row or group, integer zero points.

    engine: the engine that will run the checkpoint; it decides which weights are refused.
    """

    engine: Literal["transformers", "vllm", "vllm-cpu", "sglang"] = "transformers"

    extra: ClassVar[str] = "compressed-tensors"
    folds: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("compressed_tensors",)

    @property
    def exact(self) -> bool:
        """Transformers decompresses weights and then computes as the simulation does."""
        return self.engine == "transformers"

    @property
    def _engine(self) -> Engine:
        return ENGINES[self.engine].as_installed()

    def _packing(self, spec: WeightSpec) -> Packing:
        return Packing.of(spec, self._engine)

    def unavailable(self) -> str:
        """Why outputs cannot be compared: vLLM is not installed, or mmq does not start SGLang."""
        if self._engine.package in VLLM and not vllm_python(self._engine.package):
            return (
                f"{self._engine.package} is not installed for this Python, or the one that "
                f"{PYTHON} names; install it (make .venv-vllm/installed), set {PYTHON}"
                f"=.venv-vllm/bin/python, and export again"
            )
        if self.engine == "sglang":
            return (
                "mmq does not start SGLang; serve the folder, and score it with mmq evaluate "
                "--endpoint"
            )
        return ""

    def refusal(self, spec: WeightSpec, shape: tuple[int, int], component: str) -> str:
        """Why the format or the engine does not support such a weight; "" if it does."""
        if spec.input_scale and not spec.folds:
            return "the format has no input scales; quantize with awq's --foldable true"
        if spec.group_index:
            return "the format has had no act-order since 2026-08"
        if not spec.integer_zero_points:
            return "the format has integer zero points only"
        if self._engine.half_scales and spec.scale_dtype == "float32":
            return (
                f"{self.engine} rounds scales to 16 bits, but some of these need float32; "
                f"quantize with --scale-dtype float16-only, or a larger --group-size"
            )
        return self._engine.refusal(spec, shape, component)

    def stored_bits(self, shape: tuple[int, int], spec: WeightSpec) -> float:
        """Bits of codes, scales, zero points and the shape."""
        return 8.0 * sum(outline.bytes for outline in self._outlines("w.weight", shape, spec))

    def _outlines(
        self, name: str, shape: tuple[int, ...], spec: WeightSpec
    ) -> tuple[Outline, ...]:
        packing, stem = self._packing(spec), name.removesuffix("weight")
        rows, columns = shape
        groups = columns // spec.group_size if spec.group_size else 1
        scale = DTYPES[getattr(torch, spec.scale_dtype)]
        if packing.with_8_bit_inputs:
            return Outline(name, "I8", shape), Outline(f"{name}_scale", scale, (rows, 1))
        outlines = [
            Outline(f"{stem}weight_packed", "I32", (rows, packed_width(columns, packing.bits))),
            Outline(f"{stem}weight_shape", "I64", (2,)),
            Outline(f"{stem}weight_scale", scale, (rows, groups)),
        ]
        if packing.zero_points:
            words = math.ceil(rows * packing.bits / WORD)
            outlines.append(Outline(f"{stem}weight_zero_point", "I32", (words, groups)))
        return tuple(outlines)

    def planned_bytes(self, source: ExportSource) -> int:
        """Bytes of all files."""
        return self._files(source).bytes()

    def _files(self, source: ExportSource) -> NewCheckpoint:
        quantized = quantization_config(source, self._engine)
        config = source_config(source) | {"quantization_config": quantized}
        return NewCheckpoint(source, self._outlines, config)

    def export(
        self, source: ExportSource, layers: Iterable[ExportedLayer], folder: Path
    ) -> ExportReport:
        """Write the checkpoint; tensors keep the source's names, so that engines find them."""
        stored: dict[str, str] = {}
        float32: list[str] = []

        def encode(name: str, layer: ExportedLayer) -> Mapping[str, Tensor]:
            assert not isinstance(layer.weight, Tensor)
            if layer.weight.scale.dtype == torch.float32:
                float32.append(layer.name)
            packing = self._packing(WeightSpec.of(layer.weight))
            stored[layer.name] = str(packing)
            stem = name.removesuffix("weight")
            return {f"{stem}{part}": t for part, t in encoded(layer.weight, packing).items()}

        folding = Folding(source.stored)
        self._files(source).write(folding.collecting(layers), folder, encode, folding.change)
        notes = (*self._notes(source, float32), *([folding.note] if folding.note else []))
        return ExportReport(file_sizes(folder), stored, notes, folded=folding.layers)

    def _llm_alone(self, source: ExportSource) -> bool:
        """Whether only layers of the language model are quantized."""
        components = source.skeleton.components.items()
        return not any(
            layer.name in source.specs
            for name, component in components
            if name != "llm"
            for layer in component.layers
        )

    def _notes(self, source: ExportSource, float32: Sequence[str]) -> tuple[str, ...]:
        notes = []
        packings = [self._packing(spec) for spec in source.specs.values()]
        if rounding := sum(packing.with_8_bit_inputs for packing in packings):
            notes.append(
                f"{self.engine} runs 8-bit weights with 8-bit inputs only: it rounds the inputs "
                f"of {rounding} layers, one scale per token, and the simulated model does not. "
                f"The proof has the scores of both; at 4 bits, inputs are not rounded."
            )
        if any(packing.widened for packing in packings):
            notes.append(
                "Asymmetric weights take one bit more than their codes: transformers with "
                "compressed-tensors 0.18 to 0.20 cannot load packed zero points, so they are "
                "folded into the codes, exactly."
            )
        if self.engine == "transformers" and not self._llm_alone(source):
            notes.append(
                "In transformers, call model.hf_quantizer.compressor.decompress_model(model) "
                "after from_pretrained, as the command above does: weights are decompressed when "
                "the whole model is first called, and generate() calls the vision tower earlier."
            )
        if float32:
            notes.append(
                f"{len(float32)} layers have float32 scales ({float32[0]}, ...): load the model "
                f"in float32; in 16 bits, these scales are rounded."
            )
        config = source_config(source)
        dtype = str(config.get("dtype") or config.get("torch_dtype"))
        if dtype == "bfloat16" and {s.scale_dtype for s in source.specs.values()} != {dtype}:
            notes.append(
                "The checkpoint is in bfloat16 and the scales are not: engines that load it in "
                "bfloat16 round them. Load it in float16 or float32, or quantize with bfloat16 "
                "scales."
            )
        return tuple(notes)

    def export_unquantized(self, source: ExportSource, folder: Path) -> None:
        """Links to the source's files, which the engines open as they are."""
        link_checkpoint(source.folder, folder)

    def read_back(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        """Weights of the quantized layers, decompressed by the compressed-tensors package."""
        groups, stored = read_groups(folder), stored_weights(folder) or {}
        stems = [n.removesuffix("_scale") for n in stored if n.endswith(".weight_scale")]
        parameters = parameter_names(folder, stems)
        for stem in stems:
            names = {part: f"{stem.removesuffix('weight')}{part}" for part in PARTS}
            tensors = {
                part: read_tensor(folder, stored[name], name)
                for part, name in names.items()
                if name in stored
            }
            layer = parameters[stem].removesuffix(".weight")
            yield layer, unpack(tensors, group_of(layer, groups))

    def open(self, folder: Path, device: str) -> AbstractContextManager[VisionLanguageModel]:
        """The model in its engine: vLLM in the scales' dtype, or transformers in the trial's."""
        if reason := self.unavailable():
            raise InputError(f"target: {reason}")
        if self._engine.package in VLLM:
            return running(folder, vllm_python(self._engine.package), scale_dtype(folder))
        return nullcontext(open_model(folder, device))

    def commands(self, folder: Path) -> Sequence[str]:
        """Commands that serve the folder or load it."""
        if self._engine.package in VLLM:
            return (f"vllm serve {folder} --dtype {scale_dtype(folder)}",)
        if self.engine == "sglang":
            dtype = scale_dtype(folder)
            return (f"python -m sglang.launch_server --model-path {folder} --dtype {dtype}",)
        return (transformers_command(folder),)


def encoded(weight: QuantizedWeight, packing: Packing) -> dict[str, Tensor]:
    """The tensors of a weight, by the last part of their names."""
    rows, columns = weight.codes.shape
    middle = 1 << (weight.bits - 1)
    codes = weight.codes.to(torch.int16)
    scale = weight.scale.expand(rows, -1).contiguous()
    if packing.with_8_bit_inputs:
        return {"weight": (codes - middle).to(torch.int8), "weight_scale": scale}
    tensors = {"weight_shape": torch.tensor([rows, columns]), "weight_scale": scale}
    if packing.widened:
        assert weight.zero_point is not None
        zero = weight.zero_point.to(torch.int16).expand(rows, -1)
        per_input = zero.repeat_interleave(columns // zero.shape[1], dim=1)
        tensors["weight_packed"] = pack((codes - per_input).to(torch.int8), packing.bits)
        return tensors
    tensors["weight_packed"] = pack((codes - middle).to(torch.int8), packing.bits)
    if weight.zero_point is not None:
        zero = (weight.zero_point.to(torch.int16) - middle).to(torch.int8).expand(rows, -1)
        tensors["weight_zero_point"] = pack(zero.contiguous(), packing.bits, packed_dim=0)
    return tensors


def scale_dtype(folder: Path) -> str:
    """The dtype that loads the folder's scales unchanged: float16, unless they are bfloat16."""
    stored = stored_weights(folder) or {}
    dtypes = {tensor.dtype for name, tensor in stored.items() if name.endswith(".weight_scale")}
    return "bfloat16" if dtypes == {"BF16"} else "float16"
