"""What a model family implements: how to load a model, split it and ask it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from mmq.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmq.models.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How a model family is asked on a task: prompt template and decoding settings."""

    prompt: str
    max_new_tokens: int
    num_beams: int = 1
    min_new_tokens: int = 0
    length_penalty: float = 1.0


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
    whose weights it uses. What is not `kept` is computed again instead of cached: it is cheap.
    """

    name: str
    components: tuple[str, ...]
    compute: Callable[[Any, Tensor], Tensor]
    kept: bool = True


def with_answer(text: str, answer: str) -> str:
    """A prompt with its answer behind it."""
    return f"{text} {answer}".strip()


def architecture_of(config: Any) -> str:
    """The model class that a configuration names, or its model type where it names none."""
    found: str = (getattr(config, "architectures", None) or [config.model_type])[0]
    return found


class ModelFamily(ABC):
    """One kind of VLM: how to load it, where its components are, how to ask it.

    A family with `stages` implements `pixels` and `answer`, and its evaluations take the outputs
    of the stages from the cache; one without implements `generate` alone. A `general` family is
    asked last, after those made for one architecture.
    """

    version: ClassVar[int] = 1  # raise it with every change that gives other outputs
    architectures: ClassVar[tuple[str, ...]] = ()
    components: ClassVar[tuple[ComponentSpec, ...]] = ()
    general: ClassVar[bool] = False
    generation: ClassVar[Mapping[str, GenerationConfig]] = {}
    reading: ClassVar[Mapping[str, Any]] = {}  # how texts become tokens, to be logged
    stages: ClassVar[tuple[Stage, ...]] = ()

    @classmethod
    def identity(cls) -> tuple[str, int]:
        """Name and version of the class: what it computed is reused as long as they stay."""
        return f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}", cls.version

    @property
    def tasks(self) -> tuple[str, ...]:
        """What its models can be scored on."""
        return tuple(sorted(self.generation))

    def serves(self, config: Any) -> bool:
        """Whether this configuration's architecture is one of this family's."""
        return architecture_of(config) in self.architectures

    def component_specs(self, root: nn.Module) -> tuple[ComponentSpec, ...]:
        """Where the components of this model are; a general family looks at the model itself."""
        return self.components

    @abstractmethod
    def skeleton(self, config: Any) -> nn.Module:
        """The model without weights, for use under `torch.device("meta")`."""

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

    @abstractmethod
    def generate(
        self,
        model: "LoadedModel",
        images: Sequence["Image"],
        texts: Sequence[str],
        settings: GenerationConfig,
    ) -> list[str]:
        """What the model says to each (image, text), without the prompt."""

    def forwards(
        self,
        model: "LoadedModel",
        images: Sequence["Image"],
        texts: Sequence[str],
        answers: Sequence[str],
    ) -> list[Callable[[], Tensor | None]]:
        """The model's forwards on pictures and texts with right answers, to be called in order.

        For calibration: together they must use every layer as the evaluators use it. Any of them
        may be ended from inside. The texts with their answers are equally long.
        What they return, if anything, are log-probabilities (rows, choices) of what the model
        decides for these pairs: how far they move is how sensitive it is.
        """
        raise InputError(
            f"{type(self).__name__} cannot run a calibration, so that no calibrated quantizer can "
            f"be used; rtn and uniform can"
        )

    def pixels(self, model: "LoadedModel", images: Sequence["Image"]) -> Tensor:
        """What the first stage takes of these pictures, on the model's device."""
        raise NotImplementedError(f"{type(self).__name__} has no stages")

    def answer(
        self,
        model: "LoadedModel",
        features: Tensor,
        texts: Sequence[str],
        settings: GenerationConfig,
    ) -> list[str]:
        """What the model says to each (last stage's outputs, text), without the prompt."""
        raise NotImplementedError(f"{type(self).__name__} has no stages")
