"""The interface between evaluators and vision-language models: requests and outputs.

Evaluators write requests and read outputs; they never see a module, a family or a stage. Anything
that implements `VisionLanguageModel.generate` can be scored: a model in this process, a server, an
engine.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mmq.contracts.images import ImageRef
from mmq.contracts.timing import AnswerTiming, Engine

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[Iterable[Any], str], Iterable[Any]]  # (batches, description) -> the batches


class AnswerFormat(Enum):
    """The kind of text to generate; families have a prompt for each."""

    CAPTION = "caption"
    SHORT_ANSWER = "short answer"
    CHOICE = "choice"
    FREE = "free text"


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt about some pictures. The model adds its own chat template to the prompt."""

    images: tuple[ImageRef, ...]
    prompt: str
    sample_id: str


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """Decoding settings. Deterministic: greedy with one beam, otherwise beam search.

    length_penalty: a beam's score is divided by its length to this power. batch_size: requests per
    forward; it is here because it changes how results round. max_batch_tokens: a batch has at most
    this many prompt tokens, with those of its pictures and its padding; 0: any number.
    """

    max_new_tokens: int
    num_beams: int = 1
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    batch_size: int = 64
    max_batch_tokens: int = 0


@dataclass(frozen=True, slots=True)
class InputOptions:
    """The user's options for a model's inputs; the defaults are the checkpoint's own.

    template: values of variables of the chat template, e.g. {"enable_thinking": False}.
    min_pixels, max_pixels: size of a picture that the processor scales up or down to; 0: its own.
    """

    template: Mapping[str, Any] = field(default_factory=dict)
    system_prompt: str = ""
    min_pixels: int = 0
    max_pixels: int = 0

    def changes(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        default = asdict(InputOptions())
        return {name: v for name, v in asdict(self).items() if v != default[name]}


DEFAULT_INPUTS = InputOptions()


@dataclass(frozen=True, slots=True)
class AnswerProtocol:
    """A model's prompt and settings for one format. `{}` in the template is the question."""

    template: str
    config: GenerationConfig

    def prompt(self, question: str) -> str:
        """The template with the question inserted; other braces are unchanged."""
        return self.template.replace("{}", question)


# the default, for models without their own
GENERAL_PROTOCOLS: Mapping[AnswerFormat, AnswerProtocol] = {
    AnswerFormat.CAPTION: AnswerProtocol(
        "Describe the image in one short sentence.", GenerationConfig(max_new_tokens=30)
    ),
    AnswerFormat.SHORT_ANSWER: AnswerProtocol(
        "{}\nAnswer the question using a single word or phrase.",
        GenerationConfig(max_new_tokens=10),
    ),
    AnswerFormat.CHOICE: AnswerProtocol(
        "{}\nAnswer with the option's letter from the given choices directly.",
        GenerationConfig(max_new_tokens=10),
    ),
    AnswerFormat.FREE: AnswerProtocol("{}", GenerationConfig(max_new_tokens=512)),
}


class VisionLanguageModel(ABC):
    """Answers requests with text; only `generate` must be implemented."""

    def protocol(self, answer_format: AnswerFormat) -> AnswerProtocol:
        """The model's protocol for a format; InputError for one that it does not support."""
        return GENERAL_PROTOCOLS[answer_format]

    @abstractmethod
    def generate(
        self, requests: Sequence[Request], config: GenerationConfig, progress: Progress
    ) -> list[str]:
        """One text per request, in order, without the prompt.

        Wrap the loop over batches in `progress(batches, description)`.
        """

    def render(self, request: Request) -> str:
        """The prompt with the model's chat template applied."""
        return request.prompt

    def engine(self) -> Engine:
        """The engine that computes the answers; this process, unless overridden."""
        return Engine(type(self).__name__, "", 0, os.getpid())

    def time_answer(self, request: Request, config: GenerationConfig) -> AnswerTiming:
        """The time of an answer of exactly `config.max_new_tokens` tokens, decoded greedily.

        By default two answers are generated, the first of one token: `generate` must generate
        `min_new_tokens`. Engines that report their own timings override this.
        """
        durations = []
        for tokens in (1, config.max_new_tokens):
            exact = replace(config, max_new_tokens=tokens, min_new_tokens=tokens)
            started = time.perf_counter()
            self.generate([request], exact, lambda items, description: items)
            durations.append(time.perf_counter() - started)
        first, seconds = durations
        decoding = max(0.0, seconds - first)
        return AnswerTiming(seconds, config.max_new_tokens, first, decoding)


class ImageTextMatcher(Protocol):
    """Scores how well pictures and texts match, for retrieval."""

    def embed_images(
        self, images: Sequence[ImageRef], batch_size: int, progress: Progress
    ) -> "Tensor":
        """Unit vectors (images, queries, width)."""

    def embed_texts(self, texts: Sequence[str], batch_size: int, progress: Progress) -> "Tensor":
        """Unit vectors (texts, width)."""

    def match(
        self,
        images: Sequence[ImageRef],
        texts: Sequence[str],
        pairs: np.ndarray,
        batch_size: int,
        progress: Progress,
    ) -> np.ndarray:
        """Logits that picture and text belong together, (pairs,).

        pairs: positions in `images` and `texts`, (pairs, 2).
        """
