"""A model in this process: it answers requests, and its weights can be replaced and restored."""

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from mmq.contracts.family import ModelFamily, check_requests
from mmq.contracts.images import ImageRef
from mmq.contracts.timing import AnswerTiming, Engine
from mmq.contracts.vlm import (
    DEFAULT_INPUTS,
    AnswerFormat,
    AnswerProtocol,
    GenerationConfig,
    InputOptions,
    Progress,
    Request,
    VisionLanguageModel,
)
from mmq.models.batching import batches, by_length
from mmq.models.checkpoint_errors import answering
from mmq.models.generation import LogitsWatch, check_logits, decode_answers, stop_strings
from mmq.models.reasoning import CUT
from mmq.models.stages import encode, run_stages
from mmq.models.timing import time_generation, transformers_engine
from mmq.system.disk import naming, write_all
from mmq.system.home import home

if TYPE_CHECKING:
    from mmq.models.components import Component, Layer
    from mmq.models.stages import Rows, StageCache

log = logging.getLogger(__name__)
BROKEN, UNFINISHED = "answers/nonfinite_logits", "answers/unfinished_reasoning"  # observations
ORIGINAL = "original"  # the state of a component whose weights are those of the checkpoint


class Originals:
    """Weights as loaded, in an unnamed file: a copy in memory would double the model.

    The file disappears with the process, however it ends.
    """

    def __init__(self) -> None:
        self._folder = home()
        self._folder.mkdir(parents=True, exist_ok=True)
        # unbuffered: a full disk fails here, not when the file is closed
        self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        self._places: dict[str, tuple[int, torch.Size, torch.dtype]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def save(self, name: str, weight: Tensor) -> None:
        """Append a weight to the file; an OSError names the folder."""
        data = weight.detach().cpu().contiguous()
        start = self._file.seek(0, os.SEEK_END)
        try:
            with naming(self._folder, data.nbytes):
                write_all(self._file, data.reshape(-1).view(torch.uint8).numpy().data)
        except OSError:
            self._file.truncate(start)  # do not leave half a weight
            raise
        self._places[name] = (start, data.shape, data.dtype)

    def __getitem__(self, name: str) -> Tensor:
        start, shape, dtype = self._places[name]
        data = torch.empty(shape, dtype=dtype)
        self._file.seek(start)
        rest = memoryview(data.reshape(-1).view(torch.uint8).numpy().data)
        while rest:
            if not (count := self._file.readinto(rest)):
                raise OSError(f"the original weights of {name} are no longer in {self._folder}")
            rest = rest[count:]
        return data


@dataclass(slots=True)
class LoadedModel(VisionLanguageModel):
    """A model in this process; weights are changed in place and can be restored.

    states: by component, ORIGINAL or a hash of the weights that were written. A component that is
    missing has weights of unknown origin. observations: counts of what was noticed while
    generating since `restore_`, by metric name.
    """

    module: nn.Module
    processor: Any
    family: ModelFamily
    source: str
    fingerprint: str
    device: str
    components: "dict[str, Component]"
    inputs: InputOptions = DEFAULT_INPUTS
    parameters: int = 0  # tied ones count once
    stage_cache: "StageCache | None" = None
    observations: Counter[str] = field(default_factory=Counter)
    _watch: LogitsWatch | None = None
    states: dict[str, str] = field(init=False)
    _originals: Originals | None = None
    _layers: "dict[str, tuple[Component, dict[str, Layer]]]" = field(default_factory=dict)

    @classmethod
    def without_components(
        cls,
        module: nn.Module,
        processor: Any,
        family: ModelFamily,
        source: str,
        device: str = "cpu",
    ) -> Self:
        """A model of which nothing is quantized in this process, such as an export's."""
        return cls(module, processor, family, source, "", device, {})

    def __post_init__(self) -> None:
        self.states = dict.fromkeys(self.components, ORIGINAL)
        self.parameters = self.parameters or sum(p.numel() for p in self.module.parameters())

    def layer(self, component: str, name: str) -> "Layer":
        """A component's layer by its name: a mixture of experts has tens of thousands."""
        owner, layers = self._layers.get(component, (None, {}))
        if owner is not self.components[component]:
            owner = self.components[component]
            layers = {layer.name: layer for layer in owner.layers}
            self._layers[component] = owner, layers
        return layers[name]

    @torch.no_grad()
    def write_(self, component: str, weights: Mapping[str, Tensor]) -> None:
        """Write weights (by layer name) into a component's layers; saves the originals.

        The component's state is unknown until the caller sets it in `states`.
        """
        self._originals = self._originals or Originals()
        self.states.pop(component, None)
        for name, weight in weights.items():
            layer = self.layer(component, name)
            if name not in self._originals:
                self._originals.save(name, layer.weight)
            layer.matrix.copy_(weight)

    def original(self, layer: "Layer") -> Tensor:
        """A layer's weight (out, in) as loaded, on the model's device."""
        if self._originals is not None and layer.name in self._originals:
            return self._originals[layer.name].to(self.device)
        return layer.weight

    @torch.no_grad()
    def restore_(self) -> None:
        """Restore the loaded weights of every component that was written."""
        self.observations.clear()
        if self._originals is None:
            return
        for name, component in self.components.items():
            if self.states.get(name) == ORIGINAL:
                continue
            for layer in component.layers:
                if layer.name in self._originals:
                    layer.matrix.copy_(self._originals[layer.name])
            self.states[name] = ORIGINAL

    def protocol(self, answer_format: AnswerFormat) -> AnswerProtocol:
        """The family's protocol for a format; InputError for one that it does not support."""
        return self.family.protocol(answer_format)

    def render(self, request: Request) -> str:
        """The prompt as the model reads it, with its chat template applied."""
        return self.family.chat(self.processor, request.prompt, len(request.images), self.inputs)

    def watched(self) -> LogitsWatch:
        """A new watch of the logits; families give it to `generate`."""
        self._watch = LogitsWatch()
        return self._watch

    def answers(self, tokens: Tensor, watch: LogitsWatch, prompts: Sequence[str]) -> list[str]:
        """The answers in generated tokens, without prompts and reasoning.

        tokens: (n, length), as transformers' `generate` returned them.
        """
        start = max(watch.start, 0)
        texts, unfinished = decode_answers(
            self.processor.tokenizer, tokens, start, prompts, stop_strings(self.module)
        )
        if unfinished:
            if not self.observations[UNFINISHED]:
                log.warning(CUT)
            self.observations[UNFINISHED] += unfinished
        return texts

    def generate(
        self, requests: Sequence[Request], config: GenerationConfig, progress: Progress
    ) -> list[str]:
        """One text per request, in batches of similar length, from cached features if possible."""
        family, size = self.family, 1 if self.family.one_by_one else config.batch_size
        check_requests(requests, family)
        rows = None
        if family.stages and requests:
            images = [image for request in requests for image in request.images]
            with self._answering(requests[0]):
                rows = encode(self, images, family.stages[-1].name, size, progress)
        texts = [self.render(request) for request in requests]
        outputs = [""] * len(requests)
        parts = batches(self, requests, texts, size, config.max_batch_tokens)
        for part in progress(parts, "generate"):
            with self._answering(requests[part[0]]):
                generated = self._generate([requests[k] for k in part], config, rows)
            self._check_logits([requests[k] for k in part], config)
            for k, text in zip(part, generated, strict=True):
                outputs[k] = text
        return outputs

    def engine(self) -> Engine:
        """Transformers in this process."""
        return transformers_engine()

    def time_answer(self, request: Request, config: GenerationConfig) -> AnswerTiming:
        """The time of one answer, with the vision encoder's share of it."""
        return time_generation(self, request, config)

    @property
    def _is_original(self) -> bool:
        """Whether all weights are those of the checkpoint."""
        return all(self.states.get(name) == ORIGINAL for name in self.components)

    def _answering(self, request: Request) -> AbstractContextManager[None]:
        """InputError for a request whose inputs do not fit the unquantized model."""
        return answering(request.sample_id) if self._is_original else nullcontext()

    def _generate(
        self, requests: Sequence[Request], config: GenerationConfig, rows: "Rows | None"
    ) -> list[str]:
        """One batch; rows: of the last stage, None for a family without stages."""
        prompts = [self.render(request) for request in requests]
        if rows is None:
            pictures = [[image.open() for image in request.images] for request in requests]
            return self.family.generate(self, pictures, prompts, config)
        features = rows([image for request in requests for image in request.images])
        features = features.reshape(len(requests), -1, features.shape[-1])
        return self.family.generate_from_features(self, features, prompts, config)

    def _check_logits(self, requests: Sequence[Request], config: GenerationConfig) -> None:
        """Count answers whose logits were not finite; InputError if the model is unquantized."""
        watch, self._watch = self._watch, None
        broken = watch.broken_answers(len(requests)) if watch is not None else []
        if not broken:
            return
        self.observations[BROKEN] += len(broken)
        if self._is_original:
            alone = [requests[broken[0]]]
            check_logits(
                self.module, alone[0].sample_id, lambda: self._generate(alone, config, self._rows)
            )

    @property
    def _rows(self) -> "Rows | None":
        """The last stage's outputs, computed without the cache."""
        family = self.family
        if not family.stages:
            return None

        def compute(images: Sequence[ImageRef]) -> Tensor:
            pixels = family.pixels(self, [image.open() for image in images])
            return run_stages(self, family.stages, pixels)

        return compute

    def embed_images(
        self, images: Sequence[ImageRef], batch_size: int, progress: Progress
    ) -> Tensor:
        """The last stage's outputs, (images, queries, width)."""
        rows = encode(self, images, self.family.stages[-1].name, batch_size, progress)
        starts = range(0, len(images), batch_size)
        return torch.cat([rows(images[k : k + batch_size]) for k in starts])

    def embed_texts(self, texts: Sequence[str], batch_size: int, progress: Progress) -> Tensor:
        """Unit vectors (texts, width), in batches of similar length."""
        vectors: dict[int, Tensor] = {}
        for part in progress(by_length(texts, batch_size), "texts"):
            embedded = self.family.embed_texts(self, [texts[k] for k in part])
            vectors.update(zip(part, embedded, strict=True))
        return torch.stack([vectors[k] for k in range(len(texts))])

    def match(
        self,
        images: Sequence[ImageRef],
        texts: Sequence[str],
        pairs: np.ndarray,
        batch_size: int,
        progress: Progress,
    ) -> np.ndarray:
        """The matching head's logit of each pair (image, text) of positions, (pairs,)."""
        # sorted by text length for little padding, then by image so that few are open at once
        lengths = np.array([len(text.split()) for text in texts])
        order = np.lexsort((pairs[:, 0], lengths[pairs[:, 1]]))
        vision = encode(self, images, self.family.stages[0].name, batch_size, progress)
        logits = np.empty(len(pairs))
        parts = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]
        for part in progress(parts, "match"):
            features = vision([images[k] for k in pairs[part, 0]])
            scores = self.family.match(self, features, [texts[k] for k in pairs[part, 1]])
            logits[part] = scores.double().cpu().numpy()
        return logits
