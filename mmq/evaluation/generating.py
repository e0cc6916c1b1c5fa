"""Asking a model in batches: the bases of evaluators that read generated text."""

import logging
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from mmq.contracts import Evaluation, QuestionSample, Sample
from mmq.contracts.evaluator import Evaluator, Progress
from mmq.contracts.family import GenerationConfig, ModelFamily
from mmq.errors import InputError
from mmq.models.stages import encode

if TYPE_CHECKING:
    from mmq.models.loading import LoadedModel

log = logging.getLogger(__name__)


@dataclass
class GeneratingEvaluator(Evaluator):
    """An evaluator that reads generated text; unset options follow the model family's protocol."""

    asks_questions: ClassVar[bool] = False  # True: the prompt has one {} for the question

    batch_size: int = 64
    prompt: str | None = None
    num_beams: int | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    length_penalty: float | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_beams", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} is not at least 1")
        if self.min_new_tokens is not None and self.min_new_tokens < 0:
            raise ValueError(f"min_new_tokens: {self.min_new_tokens} is negative")
        if self.length_penalty is not None and not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty: {self.length_penalty} is not a finite number")
        if self.prompt is not None and self.asks_questions and self.prompt.count("{}") != 1:
            raise ValueError(f"prompt: {self.prompt!r} needs {{}} once, where the question goes")

    def resolve(self, family: ModelFamily) -> None:
        """Fill the options that are not set from the family's protocol for this task."""
        check_task(family, self.task)
        for setting in fields(GenerationConfig):
            if getattr(self, setting.name) is None:
                setattr(self, setting.name, getattr(family.generation[self.task], setting.name))

    def settings(self, model: "LoadedModel") -> GenerationConfig:
        """How to ask: the options, the family's protocol where they are not set."""
        self.resolve(model.family)
        names = [field.name for field in fields(GenerationConfig)]
        return GenerationConfig(**{name: getattr(self, name) for name in names})

    @abstractmethod
    def example(self, sample: Any) -> tuple[str, str]:
        """A sample's question ("" where the task has none) and one right answer."""

    def calibration_texts(self, samples: Sequence[Any]) -> list[tuple[str, str]]:
        """The prompt as it is asked, and a right answer."""
        examples = [self.example(sample) for sample in samples]
        return [(self.filled(question), answer) for question, answer in examples]

    def filled(self, question: str) -> str:
        """The prompt with the question in its place; other braces are the prompt's own."""
        assert self.prompt is not None  # resolved
        return self.prompt.replace("{}", question) if self.asks_questions else self.prompt

    def ask(
        self,
        model: "LoadedModel",
        samples: Sequence[Sample],
        texts: Sequence[str],
        settings: GenerationConfig,
        progress: Progress,
    ) -> list[str]:
        """The model's answer to every sample, in the samples' order."""
        answers = [""] * len(samples)
        family, size = model.family, self.batch_size
        rows = None
        if family.stages:
            refs = [sample.image for sample in samples]
            rows = encode(model, refs, family.stages[-1].name, size, progress)
        by_length = sorted(range(len(samples)), key=lambda k: len(texts[k]))  # little padding
        batches = [by_length[start : start + size] for start in range(0, len(samples), size)]
        for part in progress(batches, self.task):
            asked, pictures = [texts[k] for k in part], [samples[k].image for k in part]
            if rows is None:
                images = [image.open() for image in pictures]
                said = family.generate(model, images, asked, settings)
            else:
                said = family.answer(model, rows(pictures), asked, settings)
            for k, text in zip(part, said, strict=True):
                answers[k] = one_line(text)
        return answers


class InParts(Evaluator):
    """An evaluator that predicts first and scores then: what it predicted of a part is kept.

    A search stops its trials early (mmq.studies.pruning) where `bounds` says between which values
    the primary metric's samples lie and no sample's score depends on others but by `prepare`.
    """

    @abstractmethod
    def predict(
        self, model: "LoadedModel", samples: Sequence[Any], progress: Progress
    ) -> list[str]:
        """What the model says of every sample, in the samples' order."""

    @abstractmethod
    def score(self, samples: Sequence[Any], answers: Sequence[str]) -> Evaluation:
        """Scores of what was said, in the samples' order."""

    def values(self, samples: Sequence[Any], answers: Sequence[str]) -> Sequence[float]:
        """The primary metric of every sample alone; overridden where that is quicker."""
        evaluation = self.score(samples, answers)
        return evaluation.per_sample[evaluation.primary]

    def evaluate(
        self, model: "LoadedModel", samples: Sequence[Any], progress: Progress
    ) -> Evaluation:
        """Predict, then score."""
        return self.score(samples, answers_of(self, model, samples, progress))


def answers_of(
    evaluator: InParts, model: "LoadedModel", samples: Sequence[Any], progress: Progress
) -> list[str]:
    """What the model says of every sample: saved before it is scored, asked no second time."""
    saved = getattr(model, "saved_answers", None)
    if saved is not None and (answers := saved.get(samples)) is not None:
        log.info("%d answers of an evaluation that was not scored are reused", len(answers))
        return list(answers)
    answers = evaluator.predict(model, samples, progress)
    if saved is not None:
        saved.add(samples, answers)
    return answers


@dataclass
class QuestionEvaluator(InParts, GeneratingEvaluator):
    """An evaluator of answers to questions: subclasses say what given answers are worth."""

    asks_questions: ClassVar[bool] = True

    def example(self, sample: QuestionSample) -> tuple[str, str]:
        """The question with the answer that most annotators gave."""
        return sample.question, Counter(sample.answers).most_common(1)[0][0]

    def predict(
        self, model: "LoadedModel", samples: Sequence[QuestionSample], progress: Progress
    ) -> list[str]:
        """Ask every question."""
        settings = self.settings(model)
        prompts = [self.filled(sample.question) for sample in samples]
        return self.ask(model, samples, prompts, settings, progress)


def check_task(family: ModelFamily, task: str) -> None:
    """InputError where models of the family cannot be scored on the task."""
    if task not in family.tasks:
        raise InputError(
            f"{type(family).__name__} models cannot be scored on {task!r}; tasks they can be "
            f"scored on: {', '.join(family.tasks) or 'none'}"
        )


def one_line(text: str) -> str:
    """The words of a text with single spaces: a collapsed model emits anything."""
    return " ".join(text.split())
