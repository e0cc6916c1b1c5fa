"""What an evaluator implements: a model gets scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmq.contracts.evaluation import Evaluation
from mmq.errors import InputError

if TYPE_CHECKING:
    from mmq.models.loading import LoadedModel
from mmq.contracts.family import ModelFamily

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass
class Evaluator(ABC):
    """Scores a model on a task. Subclasses are dataclasses; fields are options.

    Searches can stop trials early where an evaluator extends
    `mmq.evaluation.generating.InParts`, too.
    """

    version: ClassVar[int] = 1  # raise it with every change that gives other scores
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
