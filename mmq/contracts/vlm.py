"""The waist: what is asked of a vision-language model, and what answers.

Evaluators write requests and read outputs; they never see a module, a family or a stage. Whatever
implements `VisionLanguageModel.generate` can be scored: a model in this process, a server, an
engine.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mmq.contracts.images import ImageRef

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[Iterable[Any], str], Iterable[Any]]  # (batches, description) -> the batches


class AnswerFormat(Enum):
    """The kind of text that a model is to write. Families say how they are asked for each."""

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
    """Decoding settings. Deterministic: greedy with one beam, else beam search.

    length_penalty: exponent of the length by which a beam's score is divided. batch_size: requests
    per forward; it belongs here because other batches round differently.
    """

    max_new_tokens: int
    num_beams: int = 1
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    batch_size: int = 64


@dataclass(frozen=True, slots=True)
class AnswerProtocol:
    """How a model is asked for one format. `{}` in the template stands for the question."""

    template: str
    config: GenerationConfig

    def prompt(self, question: str) -> str:
        """The template with the question in its place; other braces are left as they are."""
        return self.template.replace("{}", question)


# for models without a protocol of their own
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
    """Answers requests with text. An implementation needs `generate` alone."""

    def protocol(self, answer_format: AnswerFormat) -> AnswerProtocol:
        """How this model is asked for a format; InputError for one that it cannot give."""
        return GENERAL_PROTOCOLS[answer_format]

    @abstractmethod
    def generate(
        self, requests: Sequence[Request], config: GenerationConfig, progress: Progress
    ) -> list[str]:
        """One text per request, in their order, without the prompt.

        Wrap the loop over batches in `progress(batches, description)`.
        """

    def render(self, request: Request) -> str:
        """The prompt as the model reads it, with its chat template applied."""
        return request.prompt


class ImageTextMatcher(Protocol):
    """Scores how well pictures and texts belong together: what retrieval needs."""

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
