"""An exported model that answers from OpenVINO, through the code that scored it in PyTorch."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from mmq.contracts.family import Stage
from mmq.contracts.timing import AnswerTiming, Engine
from mmq.contracts.vlm import GenerationConfig, Request, VisionLanguageModel
from mmq.errors import InputError
from mmq.export.targets import need
from mmq.models.checkpoint import read_config
from mmq.models.generation_settings import reset_others_
from mmq.models.loaded import LoadedModel
from mmq.models.skeleton import family_of
from mmq.models.transformers_loading import quietly
from mmq.system.memory import trim
from mmq_plugins.targets.openvino_binding import dequantizing
from mmq_plugins.targets.openvino_decoder import BEAMS
from mmq_plugins.targets.openvino_file import graph_files
from mmq_plugins.targets.openvino_graphs import DECODER, MATCHER, TEXT, VISION
from mmq_plugins.targets.openvino_tracing import EXTRA

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
# 8-bit activations are inexact; in bfloat16, OpenVINO 2026.4 returns no rows with them for BLIP-2
ALWAYS = {"PERFORMANCE_HINT": "LATENCY", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


def engine_settings(exact: bool, threads: int) -> dict[str, Any]:
    """OpenVINO's settings; threads: 0 for PyTorch's."""
    count = threads or torch.get_num_threads()
    return {"INFERENCE_NUM_THREADS": count} | ALWAYS | (EXACT if exact else {})


def weights_of(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Layer names and weights (out, in), float32, as OpenVINO reads and dequantizes them."""
    core = need("openvino", EXTRA).Core()
    for path in graph_files(folder):
        for name, graph in dequantizing(core.read_model(path)):
            yield name, _computed(core, graph)
            trim()


def _computed(core: Any, graph: Any) -> Tensor:
    """The output of a graph without inputs; nothing else of it stays in memory."""
    compiled = core.compile_model(graph, "CPU", engine_settings(exact=True, threads=0))
    return torch.from_numpy(compiled([])[0].copy())


class Compiled:
    """A compiled graph: tensors by name go in, tensors come out in order."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._count = len(compiled.outputs)

    def __call__(self, **inputs: Tensor) -> list[Tensor]:
        """Run it."""
        arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in inputs.items()}
        self._request.infer(arrays, share_inputs=True)
        outputs = (self._request.get_output_tensor(k).data for k in range(self._count))
        return [torch.from_numpy(np.array(output)) for output in outputs]

    def forget(self) -> None:
        """Empty the state."""
        self._request.reset_state()


class EngineCache(Cache):  # type: ignore[misc]
    """Keys and values in OpenVINO: it knows how many there are and which rows come next."""

    def __init__(self, rows: Tensor, length: int) -> None:
        super().__init__(layers=[])
        self.rows, self.length = rows, length

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of tokens."""
        return self.length

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self.rows = self.rows.repeat_interleave(repeats)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Select rows."""
        self.rows = self.rows[beam_idx]


class EngineDecoder:
    """Replacements for methods of a decoder of transformers; the rest of it stays."""

    engine: Compiled
    embed: Compiled
    device = torch.device("cpu")

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: EngineCache | None = None,
        inputs_embeds: Tensor | None = None,
        **ignored: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the last token, and the cache with the new tokens."""
        assert position_ids is not None
        if inputs_embeds is None:
            assert input_ids is not None
            (inputs_embeds,) = self.embed(input=input_ids)
        rows, length = inputs_embeds.shape[:2]
        if past_key_values is None:
            self.engine.forget()
            past_key_values = EngineCache(torch.arange(rows), 0)
        if attention_mask is None:  # what generate passes where no text is padded
            attention_mask = torch.ones(rows, past_key_values.length + length)
        (logits,) = self.engine(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask.long(),
            position_ids=position_ids.long(),
            **{BEAMS: past_key_values.rows.int()},
        )
        cache = past_key_values
        cache.rows, cache.length = torch.arange(rows), cache.length + length
        return CausalLMOutputWithPast(logits=logits, past_key_values=cache)


class OpenVinoModel(LoadedModel):
    """A model whose parts OpenVINO computes; the rest of transformers asks them."""

    def engine(self) -> Engine:
        """OpenVINO in this process."""
        return Engine("OpenVINO", version("openvino"), torch.get_num_threads(), os.getpid())

    def time_answer(self, request: Request, config: GenerationConfig) -> AnswerTiming:
        """The time of two answers: OpenVINO's parts have no hooks."""
        return VisionLanguageModel.time_answer(self, request, replace(config, num_beams=1))


@contextmanager
def opened(folder: Path, exact: bool, threads: int) -> Iterator[LoadedModel]:
    """The model of an exported folder in OpenVINO."""
    core = need("openvino", EXTRA).Core()
    settings = engine_settings(exact, threads)
    config = read_config(str(folder))
    family: Any = family_of(config)
    if family.matches:
        replaced = _matching_family(family, _matching_parts(core, folder, settings))
        module: Any = _without_weights(family, config)
    else:
        vision, text, decoder = (
            _compiled(core, folder, stem, settings) for stem in (VISION, TEXT, DECODER)
        )
        replaced = _with_stages(
            family, (Stage("connector", (), lambda _, pixels: vision(pixel_values=pixels)[0]),)
        )
        module = _without_weights(family, config)
        module.get_input_embeddings = lambda: lambda ids: text(input=ids)[0]
        _replace_decoder(module.get_submodule(family.decoder), decoder, text)
        if not family.decoder and (folder / "generation_config.json").exists():
            module.generation_config = transformers.GenerationConfig.from_pretrained(folder)
            reset_others_(module)
    processor = family.load_processor(str(folder))
    yield OpenVinoModel.without_components(module, processor, replaced, str(folder))


def _without_weights(family: Any, config: Any) -> Any:
    with quietly(), torch.device("meta"):
        return family.skeleton(config).eval()


def _compiled(core: Any, folder: Path, stem: str, settings: Mapping[str, Any]) -> Compiled:
    path = folder / f"{stem}.xml"
    try:
        return Compiled(core.compile_model(path, "CPU", settings))
    except RuntimeError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: RuntimeError) -> InputError:
    reason = " ".join(str(error).split())[-300:]
    return InputError(f"OpenVINO cannot load {path}: {reason}")


def _replace_decoder(decoder: Any, engine: Compiled, embed: Compiled) -> None:
    """Let a decoder of transformers compute in OpenVINO; it generates as before."""
    kind = type(decoder)
    decoder.__class__ = type(kind.__name__, (EngineDecoder, kind), {})
    vars(decoder).update(engine=engine, embed=embed)


def _with_stages(family: Any, stages: Sequence[Stage], **methods: Any) -> Any:
    """A family like another one, with other stages."""
    kind = type(family)
    return type(kind.__name__, (kind,), {"stages": tuple(stages), **methods})()


def _matching_parts(core: Any, folder: Path, settings: Mapping[str, Any]) -> dict[str, Compiled]:
    """One compiled graph per output, each of the part of the graph that it needs."""
    import openvino as ov

    path = folder / f"{MATCHER}.xml"
    needs = {
        "vision_states": ("pixel_values",),
        "image_vectors": ("vision",),
        "text_vectors": ("input_ids", "attention_mask"),
        "matching_logits": ("vision", "input_ids", "attention_mask"),
    }
    parts = {}
    try:
        for output, inputs in needs.items():
            model = core.read_model(path)
            results = [model.output(output).get_node()]
            parameters = [model.input(name).get_node() for name in inputs]
            part = ov.Model(results, parameters, output)
            parts[output] = Compiled(core.compile_model(part, "CPU", settings))
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    return parts


def _matching_family(family: Any, parts: Mapping[str, Compiled]) -> Any:
    stages = (
        Stage("vision", (), lambda _, pixels: parts["vision_states"](pixel_values=pixels)[0]),
        Stage("connector", (), lambda _, vision: parts["image_vectors"](vision=vision)[0]),
    )

    def text_vectors(self: Any, module: Any, ids: Tensor, mask: Tensor) -> Tensor:
        return parts["text_vectors"](input_ids=ids, attention_mask=mask)[0]

    def matching_logits(
        self: Any, module: Any, vision: Tensor, ids: Tensor, mask: Tensor
    ) -> Tensor:
        logits = parts["matching_logits"](vision=vision, input_ids=ids, attention_mask=mask)
        return logits[0]

    return _with_stages(family, stages, text_vectors=text_vectors, matching_logits=matching_logits)
