"""The interface of model families: how to load, split and prompt a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn

from mmq.contracts.vlm import (
    DEFAULT_INPUTS,
    AnswerFormat,
    AnswerProtocol,
    GenerationConfig,
    InputOptions,
    Request,
)
from mmq.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmq.models.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """Where a component's transformer blocks are; the first of `paths` that exists is used.

    Several specs with one name form one component, with its blocks numbered consecutively. A
    linear layer whose name in its block contains one of `attention` has type attn, any other ff.
    """

    name: str
    paths: tuple[str, ...]
    attention: tuple[str, ...] = ("attn", "attention")


@dataclass(frozen=True, slots=True)
class Stage:
    """One step from pictures towards the language model.

    `compute(module, values)`: values are pixels (n, 3, height, width) for the first stage, the
    previous stage's outputs for any other; it returns (n, tokens, width). `components`: those
    whose weights it uses. A stage that is not `cached` is cheap enough to compute again.
    """

    name: str
    components: tuple[str, ...]
    compute: Callable[[Any, Tensor], Tensor]
    cached: bool = True


def with_answer(text: str, answer: str) -> str:
    """A prompt followed by its answer."""
    return f"{text} {answer}".strip()


def architecture_of(config: Any) -> str:
    """The model class that a configuration names, or its model type if it names none."""
    name: str = (getattr(config, "architectures", None) or [config.model_type])[0]
    return name


class ModelFamily(ABC):
    """One kind of VLM: how to load it, where its components are, how to prompt it.

    A family with `stages` implements `pixels` and `generate_from_features`, and the outputs of its
    stages are cached; one without implements `generate` alone. A family that matches pictures and
    texts (`matches`) implements `embed_texts` and `match`. A family that `is_fallback` is tried
    after those made for one architecture.
    """

    version: ClassVar[int] = 1  # raise it with every change that gives other outputs
    architectures: ClassVar[tuple[str, ...]] = ()
    components: ClassVar[tuple[ComponentSpec, ...]] = ()
    is_fallback: ClassVar[bool] = False
    formats: Mapping[AnswerFormat, AnswerProtocol] = {}  # supported formats
    matches: ClassVar[bool] = False
    most_images: ClassVar[int | None] = 1  # pictures per request; None: any number
    tokenization: Mapping[str, Any] = {}  # how texts become tokens, to be logged
    one_by_one: str = ""  # why requests cannot share a batch; "" if they can
    needs_pictures: str = "its prompts need a picture"  # "" if it can read texts alone
    stages: ClassVar[tuple[Stage, ...]] = ()

    @classmethod
    def identity(cls) -> tuple[str, int]:
        """Name and version of the class; cached results are reused while both stay the same."""
        return f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}", cls.version

    def supports(self, config: Any) -> bool:
        """Whether this family supports the configuration's architecture."""
        return architecture_of(config) in self.architectures

    def unsupported(self, config: Any) -> str:
        """Why this family cannot load a model of an architecture that it supports; "" if it can.

        Such a model is left to a fallback family.
        """
        return ""

    def for_model(self, config: Any) -> Self:
        """The family as models of this configuration need it; a fallback family may depend on it.

        `formats`, `tokenization`, `one_by_one` and `needs_pictures` may differ between the models
        of a family.
        """
        return self

    def protocol(self, answer_format: AnswerFormat) -> AnswerProtocol:
        """The protocol for a format; InputError for one that the models do not support."""
        if answer_format not in self.formats:
            available = ", ".join(f.value for f in self.formats) or "none, they generate no text"
            raise InputError(
                f"{type(self).__name__} models cannot write a {answer_format.value}; supported "
                f"formats: {available}"
            )
        return self.formats[answer_format]

    def component_specs(self, root: nn.Module) -> tuple[ComponentSpec, ...]:
        """Where the components of this model are; a fallback family inspects the model."""
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
    ) -> nn.Module:
        """The model from a hub name or a local folder; safetensors unless allowed.

        allow_unread: accept a checkpoint with weights that the model does not read.
        """

    def check_processor(self, module: nn.Module, processor: Any, source: str) -> None:  # noqa: B027
        """InputError for a processor that does not belong to the loaded model."""

    def chat(
        self,
        processor: Any,
        prompt: str,
        images: int,
        options: InputOptions = DEFAULT_INPUTS,
    ) -> str:
        """A prompt about some pictures, with the model's chat template applied."""
        return prompt

    def prompt_tokens(
        self, processor: Any, images: Sequence["Image"], texts: Sequence[str]
    ) -> list[int]:
        """The tokens of each rendered prompt about the same pictures, pictures included."""
        raise InputError(
            f"max_batch_tokens: {type(self).__name__} models do not count tokens; give "
            f"--batch-size instead"
        )

    def generate(
        self,
        model: "LoadedModel",
        images: Sequence[Sequence["Image"]],
        texts: Sequence[str],
        config: GenerationConfig,
    ) -> list[str]:
        """The output for each (pictures, rendered prompt), without the prompt."""
        raise NotImplementedError(f"{type(self).__name__} does not implement generate")

    def calibration_forwards(
        self,
        model: "LoadedModel",
        images: Sequence[Sequence["Image"]],
        texts: Sequence[str],
        answers: Sequence[str],
    ) -> list[Callable[[], Tensor | None]]:
        """The model's forwards on pictures and rendered prompts with correct answers, in order.

        Together they must use every layer as the evaluators do. Any of them may be aborted early.
        All texts with their answers have the same length and number of pictures. Without pictures,
        which only families without `needs_pictures` receive, the language model alone runs. The
        forwards may return log-probabilities (rows, choices) of the model's decisions on these
        pairs, whose change measures its sensitivity.
        """
        raise InputError(
            f"{type(self).__name__} has no calibration forwards, so calibrated quantizers cannot "
            f"be used with it; choose rtn or uniform"
        )

    def pixels(self, model: "LoadedModel", images: Sequence["Image"]) -> Tensor:
        """The first stage's inputs for these pictures, on the model's device."""
        raise NotImplementedError(f"{type(self).__name__} has no stages")

    def generate_from_features(
        self,
        model: "LoadedModel",
        features: Tensor,
        texts: Sequence[str],
        config: GenerationConfig,
    ) -> list[str]:
        """The output for each (last stage's outputs, rendered prompt).

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
