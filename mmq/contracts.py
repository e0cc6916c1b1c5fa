"""What a plugin provides: the contracts for quantizers, evaluators, model families and datasets.

A quantizer or evaluator is a dataclass: its fields are its options, with their defaults. They
become command options (`group_size` is `--group-size`) and MLflow params (`quantizer.group_size`)
without further work.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmq.errors import InputError
from mmq.evaluation import Evaluation as Evaluation
from mmq.evaluation import Prediction as Prediction
from mmq.quantized import QuantizedWeight
from mmq.report import LayerReport as LayerReport
from mmq.report import QuantReport as QuantReport
from mmq.samples import CaptionSample as CaptionSample
from mmq.samples import QuestionSample as QuestionSample
from mmq.samples import Sample as Sample
from mmq.stats import Metric as Metric

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmq.inputs import LayerInputs
    from mmq.model import LoadedModel

PROBED = 64  # rows of a random weight that is quantized to see what is stored
Progress = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Quantizer(ABC):
    """Turns a weight into codes. Subclasses are frozen dataclasses; fields are options.

    What a quantizer computed is used again for the same options, distribution version and module
    source: raise the distribution's version when code outside that module changes the codes.
    """

    calibrated: ClassVar[bool] = False  # True: looks at calibration pairs

    def __post_init__(self) -> None:
        group_size = getattr(self, "group_size", 0)
        if group_size < 0:
            raise ValueError(f"group_size: {group_size} is negative; 0 is one group a row")

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """Refuse a layer that cannot be quantized, by InputError, before any model is loaded."""
        group_size = getattr(self, "group_size", 0)
        if group_size > 0 and shape[1] % group_size:
            raise InputError(
                f"group_size: {group_size} does not divide the {shape[1]} inputs of {name}; "
                f"choose a divisor, or 0 for one group a row"
            )

    @abstractmethod
    def quantize(self, weight: Tensor, bits: int) -> QuantizedWeight:
        """Codes with `bits` bits (2-8) of a weight (out, in) of any float dtype."""

    def stored_bits(self, shape: tuple[int, int], bits: int) -> int:
        """Bits that a weight (out, in) will take, scales and the like included, before it is read.

        Budgets are planned with it. Override it where there is a formula: here two random weights
        with a few rows are quantized, and the size is extrapolated, as it is linear in the rows.
        Where the size depends on the weights, it is that of ordinary ones.
        """
        generator = torch.Generator().manual_seed(0)
        few, more = (
            self.quantize(torch.randn(n, shape[1], generator=generator), bits).stored_bits
            for n in (PROBED, 2 * PROBED)
        )
        return few + (shape[0] - PROBED) * (more - few) // PROBED


@dataclass(frozen=True, slots=True)
class Solved:
    """A weight's codes, and what there is to say about how they were found ("": nothing)."""

    weight: QuantizedWeight
    note: str = ""


@dataclass(frozen=True)
class CalibratedQuantizer(Quantizer):
    """A quantizer that looks at what its layers read; `quantize` serves those that read nothing.

    calibration_inputs: with full_precision every layer's inputs come from the unquantized model;
    with quantized they come from a model that is quantized, at the same width, up to that layer.
    """

    calibrated: ClassVar[bool] = True
    sampled_inputs: ClassVar[int] = 0  # how many inputs `solve` wants to see, beside their sums

    calibration_inputs: Literal["full_precision", "quantized"] = "full_precision"

    @abstractmethod
    def solve(
        self, weights: Sequence[Tensor], inputs: "LayerInputs", widths: Sequence[int]
    ) -> list[dict[int, Solved]]:
        """Codes for every width, a dict a weight (out, in): all of them read these inputs."""


@dataclass
class Evaluator(ABC):
    """Scores a model on a task. Subclasses are dataclasses; fields are options.

    Searches can stop trials early where an evaluator extends `mmq.asking.InParts`, too.
    """

    task: ClassVar[str]
    pooled: ClassVar[bool] = False  # True: a sample's score depends on the other samples
    bounds: ClassVar[tuple[float, float] | None] = None  # of a sample's primary metric, if known

    def check(self) -> None:  # noqa: B027  (most evaluators need nothing)
        """Refuse, by InputError, to start where a program is missing."""

    def resolve(self, family: "ModelFamily") -> None:  # noqa: B027
        """Fill options that depend on the model's family; InputError if it cannot be asked."""

    def check_samples(self, samples: Sequence[Any], everything: Sequence[Any]) -> None:
        """Refuse, by InputError and before any model is loaded, data that decide no score.

        samples: what will be scored, drawn from `everything`.
        """
        if not samples:
            raise InputError("There are no samples to score. Check the data set and --limit.")

    def prepare(self, samples: Sequence[Any]) -> None:  # noqa: B027
        """See the whole evaluation set once, before any model; `evaluate` may get a part of it."""

    def calibration_texts(self, samples: Sequence[Any]) -> list[tuple[str, str]]:
        """What a model reads with each calibration picture: a prompt, and a right answer or ""."""
        raise InputError(
            f"{type(self).__name__} does not say what to calibrate on, so that no calibrated "
            f"quantizer can be used; rtn and uniform can"
        )

    @abstractmethod
    def evaluate(
        self, model: "LoadedModel", samples: Sequence[Any], progress: Progress
    ) -> Evaluation:
        """Score all samples; wrap the loop over batches in `progress(batches, description)`."""

    def close(self) -> None:  # noqa: B027  (most evaluators hold nothing)
        """Release what `evaluate` kept for the next call."""


@dataclass(frozen=True, slots=True)
class Generation:
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

    architectures: ClassVar[tuple[str, ...]] = ()
    components: ClassVar[tuple[ComponentSpec, ...]] = ()
    general: ClassVar[bool] = False
    generation: ClassVar[Mapping[str, Generation]] = {}
    reading: ClassVar[Mapping[str, Any]] = {}  # how texts become tokens, to be logged
    stages: ClassVar[tuple[Stage, ...]] = ()

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
        settings: Generation,
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
        settings: Generation,
    ) -> list[str]:
        """What the model says to each (last stage's outputs, text), without the prompt."""
        raise NotImplementedError(f"{type(self).__name__} has no stages")


class Dataset(ABC):
    """A data set in the layout that its official downloads unpack to."""

    tasks: ClassVar[tuple[str, ...]]
    layout: ClassVar[str]  # the expected tree, printed when something is missing
    bundled: ClassVar[bool] = False  # True: needs no folder

    @abstractmethod
    def recognizes(self, root: Path) -> bool:
        """Whether this folder looks like this data set's."""

    def lacking(self, root: Path) -> list[str]:
        """Which of the evaluated split's files and folders are not there."""
        return []

    @abstractmethod
    def samples(self, task: str, root: Path) -> list[Any]:
        """All evaluation samples; InputError for missing or malformed files."""

    def calibration(self, task: str, root: Path, count: int, seed: int) -> list[Any] | None:
        """`count` seeded samples of the training split whose pictures are there; None for none.

        Never reads a split that shares pictures with the evaluated one. With count 0 the answer,
        [] or None, tells whether there is a training split, and reading may stop as soon as
        that is known.
        """
        return None
