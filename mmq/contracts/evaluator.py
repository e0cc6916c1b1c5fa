"""The interface of evaluators: samples become requests, outputs become scores."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from types import TracebackType
from typing import Any, ClassVar, Self

from mmq.contracts import options
from mmq.contracts.evaluation import Evaluation
from mmq.contracts.samples import QuestionSample
from mmq.contracts.vlm import (
    AnswerFormat,
    AnswerProtocol,
    GenerationConfig,
    ImageTextMatcher,
    Progress,
    Request,
)
from mmq.errors import InputError


@dataclass(frozen=True)
class Evaluator(ABC):
    """Scores a model on a task. Subclasses are frozen dataclasses; fields are options.

    Extend `GeneratingEvaluator`, or `RankingEvaluator` if nothing is generated. An evaluator has
    no state: resources for scoring belong to its `Scorer`.
    """

    version: ClassVar[int] = 1  # raise it with every change that gives other scores
    task: ClassVar[str]
    samples_of: ClassVar[str] = ""  # the task whose samples it reads, if not its own
    pooled: ClassVar[bool] = False  # True: a sample's score depends on the other samples
    bounds: ClassVar[tuple[float, float] | None] = None  # of a sample's primary metric, if known

    @classmethod
    def variant(cls, name: str) -> type[Self]:
        """The evaluator that TASK:NAME names; by default an InputError: there are no variants."""
        raise InputError(
            f"task: {cls.task!r} has no variant {name!r}; pass --task {cls.task}, or a task of "
            f"lmms-eval such as --task lmms:chartqa"
        )

    def check(self) -> None:  # noqa: B027  (most evaluators need nothing)
        """Raise InputError if a required program is missing."""

    def check_samples(self, samples: Sequence[Any], everything: Sequence[Any]) -> None:
        """Raise InputError, before any model is loaded, for data that cannot be scored.

        samples: the samples to score, a part of `everything`.
        """
        if not samples:
            raise InputError("There are no samples to score. Check the data set and --limit.")

    def effective_options(self, protocol: AnswerProtocol | None) -> dict[str, Any]:
        """All options by name, with defaults for those that are not set."""
        return options.values(self)


class Scorer(ABC):
    """Scores outputs; it may own processes and statistics of the whole evaluation set."""

    @abstractmethod
    def score(self, samples: Sequence[Any], outputs: Sequence[str]) -> Evaluation:
        """Scores of one output per sample. The samples may be a part of the evaluation set."""

    def values(self, samples: Sequence[Any], outputs: Sequence[str]) -> Sequence[float]:
        """The primary metric of each sample alone; override it if there is a faster way."""
        evaluation = self.score(samples, outputs)
        return evaluation.per_sample[evaluation.primary]

    def close(self) -> None:  # noqa: B027  (most scorers hold nothing)
        """End processes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class GeneratingEvaluator(Evaluator):
    """An evaluator that reads generated text; unset options follow the model's protocol.

    Searches can prune trials if `bounds` is set and `pooled` is False.
    """

    answer_format: ClassVar[AnswerFormat]
    asks_questions: ClassVar[bool] = False  # True: the prompt has one {} for the question

    batch_size: int = 64
    max_batch_tokens: int | None = None
    prompt: str | None = None
    num_beams: int | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    length_penalty: float | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_batch_tokens", "num_beams", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} is not at least 1")
        if self.min_new_tokens is not None and self.min_new_tokens < 0:
            raise ValueError(f"min_new_tokens: {self.min_new_tokens} is negative")
        if self.length_penalty is not None and not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty: {self.length_penalty} is not a finite number")
        if self.prompt is not None and self.asks_questions and self.prompt.count("{}") != 1:
            raise ValueError(f"prompt: {self.prompt!r} needs {{}} once, where the question goes")

    def protocol(self, model: AnswerProtocol) -> AnswerProtocol:
        """A model's protocol, with the options that are set overriding it."""
        overrides = {f.name: getattr(self, f.name) for f in fields(GenerationConfig)}
        config = replace(model.config, **{k: v for k, v in overrides.items() if v is not None})
        return AnswerProtocol(model.template if self.prompt is None else self.prompt, config)

    def effective_options(self, protocol: AnswerProtocol | None) -> dict[str, Any]:
        """All options by name, with the protocol's values for those that are not set."""
        values = options.values(self)
        if protocol is not None:
            values |= asdict(protocol.config) | {"prompt": protocol.template}
        if not values["max_batch_tokens"]:  # then batches are as they were before this option
            del values["max_batch_tokens"]
        return values

    def requests_per_sample(self, sample: Any) -> int:
        """Number of requests for a sample; the scorer gets one line of output per request.

        Several requests of a sample are consecutive, with ids that differ from all sample ids.
        """
        return 1

    @abstractmethod
    def requests(self, samples: Sequence[Any], protocol: AnswerProtocol) -> list[Request]:
        """One request per sample, or as many as `requests_per_sample`."""

    def read_output(self, text: str) -> str:
        """The part of a model's output that is scored; by default all its words, on one line."""
        return " ".join(text.split())

    @abstractmethod
    def scorer(self, samples: Sequence[Any]) -> Scorer:
        """A scorer of outputs for these samples or a part of them; a context manager.

        samples: the whole evaluation set, for document frequencies and the like.
        """

    def calibration(
        self, samples: Sequence[Any], protocol: AnswerProtocol
    ) -> list[tuple[Request, str]]:
        """A request and a correct answer per sample."""
        raise InputError(
            f"{type(self).__name__} has no calibration pairs, so calibrated quantizers cannot be "
            f"used with it; choose rtn or uniform"
        )


@dataclass(frozen=True)
class QuestionEvaluator(GeneratingEvaluator):
    """An evaluator of answers to questions; subclasses implement `scorer`."""

    answer_format: ClassVar[AnswerFormat] = AnswerFormat.SHORT_ANSWER
    asks_questions: ClassVar[bool] = True

    def requests(
        self, samples: Sequence[QuestionSample], protocol: AnswerProtocol
    ) -> list[Request]:
        """Each sample's question in the protocol's template."""
        return [Request(s.images, protocol.prompt(s.question), s.id) for s in samples]

    def calibration(
        self, samples: Sequence[QuestionSample], protocol: AnswerProtocol
    ) -> list[tuple[Request, str]]:
        """Each question with the answer that most annotators gave."""
        answers = [Counter(sample.answers).most_common(1)[0][0] for sample in samples]
        return list(zip(self.requests(samples, protocol), answers, strict=True))


@dataclass(frozen=True)
class RankingEvaluator(Evaluator):
    """An evaluator that ranks pictures and texts instead of reading generated text."""

    pooled: ClassVar[bool] = True

    @abstractmethod
    def rank(
        self, matcher: ImageTextMatcher, samples: Sequence[Any], progress: Progress
    ) -> Evaluation:
        """Scores of the rankings of all samples."""

    def calibration(self, samples: Sequence[Any]) -> list[tuple[Request, str]]:
        """A request per sample, with an empty answer."""
        raise InputError(
            f"{type(self).__name__} has no calibration pairs, so calibrated quantizers cannot be "
            f"used with it; choose rtn or uniform"
        )
