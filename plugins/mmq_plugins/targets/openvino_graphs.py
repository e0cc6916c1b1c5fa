"""The graphs that a model becomes in OpenVINO, one pair of files each.

They are called as optimum-intel and OpenVINO GenAI call them: pictures to language model inputs,
tokens to language model inputs, and the language model with its cache as a state. A model that
matches pictures and texts is one graph with several outputs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from mmq.contracts.family import architecture_of
from mmq.contracts.target import ExportSource
from mmq.errors import InputError
from mmq.export.side_files import CONFIG, side_files
from mmq.models.checkpoint import read_config
from mmq.models.loaded import LoadedModel
from mmq.models.skeleton import on_meta, skeleton
from mmq.models.transformers_family import TransformersFamily
from mmq.system.versions import major_version
from mmq_plugins.targets.openvino_decoder import DecoderToTrace, stateful
from mmq_plugins.targets.openvino_outline import Outline
from mmq_plugins.targets.openvino_tracing import Called, Graph, Input, joined, trace

VISION = "openvino_vision_embeddings_model"
TEXT = "openvino_text_embeddings_model"
DECODER = "openvino_language_model"
MATCHER = "openvino_matching_model"
SIDE = 64  # pixels of the picture that is traced; the processor resizes it
ROWS, TOKENS = 2, 3  # shape of the traced example
ANY_LENGTH = (-1, -1)


def check_family(source: ExportSource) -> None:
    """InputError for a model that cannot be split into graphs."""
    if major_version("transformers") < 5:
        raise InputError(
            f"target: openvino needs transformers 5, and {transformers.__version__} is installed; "
            f"pip install 'mmq[openvino]'"
        )
    family = source.skeleton.family
    supported = isinstance(family, TransformersFamily) and family.stages
    if not supported or (family.matches and not hasattr(family, "text_vectors")):
        architecture = architecture_of(read_config(str(source.folder)))
        raise InputError(
            f"target: openvino cannot write {architecture}: it traces the stages of a model "
            f"family (as those of LLaVA and BLIP-2), and {type(family).__name__} has none; give "
            f"--from FOLDER with an IR that optimum-intel wrote, or use --target "
            f"compressed-tensors"
        )


@dataclass(frozen=True, slots=True)
class GraphSet:
    """The graphs of a model, with stand-ins for large weights, and the files beside them.

    shapes: (out, in) of those weights, by path of their modules. stored, read: the types and the
    values of those that can stay unquantized. twins: modules with the weight of a quantized one.
    """

    graphs: list[Graph]
    shapes: Mapping[str, tuple[int, int]]
    stored: Mapping[str, str]
    read: Callable[[str], Tensor]
    files: Mapping[str, Path]
    twins: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def with_twins(self, path: str) -> tuple[str, ...]:
        """A quantized module and those that share its weight, such as a tied output head."""
        return path, *self.twins.get(path, ())


def traced(folder: Path, quantized: Collection[str]) -> GraphSet:
    """A checkpoint's graphs, traced without its weights.

    InputError where the weight of a quantized layer, by its name, cannot be replaced.
    """
    stamps = tuple((path.name, path.stat().st_mtime_ns) for path in sorted(folder.iterdir()))
    outline, graphs = _traced(folder, stamps, _of_own_classes(folder, quantized))
    return GraphSet(
        graphs=[graph.copy() for graph in graphs],
        shapes=outline.shapes,
        stored=outline.stored_types,
        read=lambda path: outline.checkpoint.tensor(outline.large[path]),
        files={CONFIG: folder / CONFIG} | dict(side_files(folder)),
        twins=outline.twins(quantized),
    )


def _of_own_classes(folder: Path, quantized: Collection[str]) -> frozenset[str]:
    """The quantized layers that are not simply PyTorch's, by name."""
    model = skeleton(str(folder))
    module = on_meta(str(folder), model.family, read_config(str(folder)))
    kinds = {name: type(module.get_submodule(name)) for name in quantized}
    return frozenset(n for n, kind in kinds.items() if kind not in (nn.Linear, nn.Embedding))


@lru_cache(maxsize=2)  # planned, written and measured by the same graphs
def _traced(
    folder: Path, stamps: tuple[tuple[str, int], ...], of_own_classes: frozenset[str]
) -> tuple[Outline, list[Graph]]:
    outline = Outline.of(folder, of_own_classes)
    return outline, _graphs(outline)


def _graphs(outline: Outline) -> list[Graph]:
    family: Any = outline.family
    module: Any = outline.module
    pixels = _pixels(outline)
    if family.matches:
        return [_matcher(family, outline, pixels)]
    embedding = module.get_input_embeddings()
    decoder = DecoderToTrace(module.get_submodule(family.decoder))
    ids = torch.ones(ROWS, TOKENS, dtype=torch.long)
    stages = Called(partial(_run, family, module), module)
    tokens = Called(lambda values: embedding(values), embedding)
    language_model = trace(
        DECODER,
        Called(decoder.forward, decoder.decoder),
        decoder.inputs(ROWS, TOKENS),
        decoder.outputs,
        outline.modules,
    )
    stateful(language_model.model, decoder.states)
    return [
        trace(VISION, stages, [pixels], ["last_hidden_state"], outline.modules),
        trace(TEXT, tokens, [Input("input", ids, ANY_LENGTH)], ["inputs_embeds"], outline.modules),
        language_model,
    ]


def _pixels(outline: Outline) -> Input:
    family: Any = outline.family
    folder = str(outline.checkpoint.folder)
    processor = family.load_processor(folder)
    model = LoadedModel.without_components(outline.module, processor, family, folder)
    pixels = family.pixels(model, [Image.new("RGB", (SIDE, SIDE))] * ROWS)
    return Input("pixel_values", pixels, (-1, *pixels.shape[1:]))


def _run(family: Any, module: Any, pixels: Tensor) -> Tensor:
    """The outputs of the last stage."""
    values = pixels
    for stage in family.stages:
        values = stage.compute(module, values)
    return values


def _matcher(family: Any, outline: Outline, pixels: Input) -> Graph:
    """Pictures, texts, and both together in one graph; OpenVINO computes what is requested."""
    module: Any = outline.module
    first, second = family.stages
    config = module.config.vision_config
    patches = (config.image_size // config.patch_size) ** 2 + 1
    vision = Input(
        "vision", torch.zeros(ROWS, patches, config.hidden_size), (-1, patches, config.hidden_size)
    )
    ones = torch.ones(ROWS, TOKENS, dtype=torch.long)
    texts = [Input(name, ones, ANY_LENGTH) for name in ("input_ids", "attention_mask")]
    parts: dict[str, tuple[Callable[..., Tensor], list[Input]]] = {
        "vision_states": (first.compute, [pixels]),
        "image_vectors": (second.compute, [vision]),
        "text_vectors": (family.text_vectors, texts),
        "matching_logits": (family.matching_logits, [vision, *texts]),
    }
    graphs = [
        trace(MATCHER, Called(partial(run, module), module), inputs, [output], outline.modules)
        for output, (run, inputs) in parts.items()
    ]
    return joined(MATCHER, graphs)
