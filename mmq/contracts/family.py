"""What a model family implements: how a model is loaded, split and asked."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from mmq.contracts.vlm import AnswerFormat, AnswerProtocol, GenerationConfig, Request
from mmq.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmq.models.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """Where a component's transformer blocks are. `paths`: the first that exists counts.

    Several specs of one name make one component, its blocks numbered on. A linear layer whose
    name in its block contains one of `attention` is of type attn, any other is of type ff.
    """

    name: str
    paths: tuple[str, ...]
    attention: tuple[str, ...] = ("attn", "attention")


@dataclass(frozen=True, slots=True)
class Stage:
    """One step from pictures towards the language model.

    `compute(module, values)`: values are pixels (n, 3, height, width) for the first stage, the
    stage before's outputs for any other; it returns (n, tokens, width). `components` are those
    whose weights it uses. A stage that is not `cached` is cheap and computed again.
    """

    name: str
    components: tuple[str, ...]
    compute: Callable[[Any, Tensor], Tensor]
    cached: bool = True


def with_answer(text: str, answer: str) -> str:
    """A prompt with its answer behind it."""
    return f"{text} {answer}".strip()


def architecture_of(config: Any) -> str:
    """The model class that a configuration names, or its model type where it names none."""
    found: str = (getattr(config, "architectures", None) or [config.model_type])[0]
    return found


class ModelFamily(ABC):
    """One kind of VLM: how to load it, where its components are, how it is asked.

    A family with `stages` implements `pixels` and `generate_from_features`, and the outputs of its
    stages are cached; one without implements `generate` alone. A family that matches pictures and
    texts (`matches`) implements `embed_texts` and `match`. A family that `is_fallback` is tried
    after those made for one architecture.
    """

    version: ClassVar[int] = 1  # raise it with every change that gives other outputs
    architectures: ClassVar[tuple[str, ...]] = ()
    components: ClassVar[tuple[ComponentSpec, ...]] = ()
    is_fallback: ClassVar[bool] = False
    formats: ClassVar[Mapping[AnswerFormat, AnswerProtocol]] = {}  # that its models can write
    matches: ClassVar[bool] = False
    most_images: ClassVar[int | None] = 1  # pictures per request; None: any number
    tokenization: ClassVar[Mapping[str, Any]] = {}  # how texts become tokens, to be logged
    stages: ClassVar[tuple[Stage, ...]] = ()

    @classmethod
    def identity(cls) -> tuple[str, int]:
        """Name and version of the class: what it computed is reused as long as they stay."""
        return f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}", cls.version

    def supports(self, config: Any) -> bool:
        """Whether this configuration's architecture is one of this family's."""
        return architecture_of(config) in self.architectures

    def protocol(self, answer_format: AnswerFormat) -> AnswerProtocol:
        """How models are asked for a format; InputError for one that they cannot write."""
        if answer_format not in self.formats:
            available = ", ".join(f.value for f in self.formats) or "none, they generate no text"
            raise InputError(
                f"{type(self).__name__} models cannot write a {answer_format.value}; formats that "
                f"they can write: {available}"
            )
        return self.formats[answer_format]

    def component_specs(self, root: nn.Module) -> tuple[ComponentSpec, ...]:
        """Where the components of this model are; a fallback family looks at the model itself."""
        return self.components

    @abstractmethod
    def skeleton(self, config: Any) -> nn.Module:
        """The model without weights, for use under `torch.device("meta")`."""

    @abstractmethod
    def load_processor(self, source: str) -> Any:
        """The checkpoint's processor of pictures and text."""

    @abstractmethod
    def load(
        self,
        source: str,
        dtype: Any,
        device: str,
        allow_pickle: bool = False,
        allow_unread: bool = False,
    ) -> tuple[nn.Module, Any]:
        """Model and processor from a hub name or a local folder; safetensors unless allowed.

        allow_unread: leave out weights of the checkpoint that nothing reads; refused otherwise.
        """

    def chat(self, processor: Any, prompt: str, images: int) -> str:
        """A prompt about some pictures as the model reads it: its chat template applied."""
        return prompt

    def generate(
        self,
        model: "LoadedModel",
        images: Sequence[Sequence["Image"]],
        texts: Sequence[str],
        config: GenerationConfig,
    ) -> list[str]:
        """What the model says to each (pictures, rendered prompt), without the prompt."""
        raise NotImplementedError(f"{type(self).__name__} generates from features or not at all")

    def calibration_forwards(
        self,
        model: "LoadedModel",
        images: Sequence[Sequence["Image"]],
        texts: Sequence[str],
        answers: Sequence[str],
    ) -> list[Callable[[], Tensor | None]]:
        """The model's forwards on pictures and rendered prompts with right answers, in order.

        Together they must use every layer as the evaluators use it. Any of them may be ended from
        inside. The texts with their answers are equally long, and every text has as many pictures.
        What they return, if anything, are log-probabilities (rows, choices) of what the model
        decides for these pairs: how far they move is how sensitive it is.
        """
        raise InputError(
            f"{type(self).__name__} has no calibration forwards, so calibrated quantizers cannot "
            f"be used with it; choose rtn or uniform"
        )

    def pixels(self, model: "LoadedModel", images: Sequence["Image"]) -> Tensor:
        """What the first stage reads of these pictures, on the model's device."""
        raise NotImplementedError(f"{type(self).__name__} has no stages")

    def generate_from_features(
        self,
        model: "LoadedModel",
        features: Tensor,
        texts: Sequence[str],
        config: GenerationConfig,
    ) -> list[str]:
        """What the model says to each (last stage's outputs, rendered prompt).

        features: (texts, image tokens, width); the tokens of several pictures follow each other.
        """
        raise NotImplementedError(f"{type(self).__name__} has no stages")

    def embed_texts(self, model: "LoadedModel", texts: Sequence[str]) -> Tensor:
        """One unit vector per text, (texts, width)."""
        raise NotImplementedError(f"{type(self).__name__} does not match pictures and texts")

    def match(self, model: "LoadedModel", vision: Tensor, texts: Sequence[str]) -> Tensor:
        """The logit that picture and text belong together, (texts,).

        vision: the first stage's outputs, one row per text.
        """
        raise NotImplementedError(f"{type(self).__name__} does not match pictures and texts")


def check_requests(requests: Sequence[Request], family: ModelFamily) -> None:
    """InputError for a request with more pictures, or fewer, than the family's models take."""
    most = family.most_images
    for request in requests:
        if not request.images or (most is not None and len(request.images) > most):
            allowed = "one or more" if most is None else "one" if most == 1 else f"1 to {most}"
            raise InputError(
                f"sample {request.sample_id!r} has {len(request.images)} pictures; "
                f"{type(family).__name__} models take {allowed}"
            )
