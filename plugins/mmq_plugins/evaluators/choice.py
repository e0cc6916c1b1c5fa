"""Multiple choice: the share of questions whose right option an output names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmq.contracts import (
    GENERAL_PROTOCOLS,
    AnswerFormat,
    AnswerProtocol,
    ChoiceSample,
    Evaluation,
    GeneratingEvaluator,
    Prediction,
    Request,
    Scorer,
)
from mmq.errors import InputError
from mmq_plugins.evaluators.choice_rules import READERS, RULES, Rule, is_open_answer
from mmq_plugins.evaluators.question_types import mean_percentages
from mmq_plugins.evaluators.vqa_answers import check_answers

ACCURACY, CIRCULAR = "choice/accuracy", "choice/circular_accuracy"


@dataclass(frozen=True)
class Choice(GeneratingEvaluator):
    """Percentage of questions answered with the right option.

    rule: how the option is read from an output: `letter`, `mmbench`, `mmmu` or `mmstar`; by
    default as the data set's authors do, and `letter` for other data. An output that names no
    option is wrong. circular: ask once per rotation of the options (MMBench's CircularEval); a
    question is right if all its outputs are.
    """

    version: ClassVar[int] = 4
    task: ClassVar[str] = "choice"
    answer_format: ClassVar[AnswerFormat] = AnswerFormat.CHOICE
    asks_questions: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float] | None] = (0, 100)

    rule: Rule | None = None
    circular: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule not in (None, *RULES):
            raise ValueError(f"rule: {self.rule!r} is not one of {list(RULES)}")

    def check_samples(
        self, samples: Sequence[ChoiceSample], everything: Sequence[ChoiceSample]
    ) -> None:
        """InputError for samples without options, or a right option that is not one of them."""
        super().check_samples(samples, everything)
        for sample in samples:
            if not isinstance(sample, ChoiceSample):
                raise InputError(
                    f"data: the sample {sample.id} has no options, so the task choice cannot be "
                    f"scored; choose another task or data set"
                )
            if sample.options and not {*sample.answers} <= {*sample.letters}:
                raise InputError(
                    f"data: the answer {sample.answers[0]!r} of the sample {sample.id} is not one "
                    f"of {', '.join(sample.letters)}"
                )
            if self.circular and sample.listed:
                raise InputError(
                    f"circular: the question of the sample {sample.id} contains its options, so "
                    f"they cannot be rotated; remove --circular"
                )
        check_answers(samples)

    def requests_per_sample(self, sample: ChoiceSample) -> int:
        """One per rotation of the options with `circular`."""
        return max(1, len(sample.options)) if self.circular else 1

    def requests(self, samples: Sequence[ChoiceSample], protocol: AnswerProtocol) -> list[Request]:
        """The questions with their options, in every rotation with `circular`."""
        requests = []
        for sample in samples:
            turns = self.requests_per_sample(sample)
            for turn in range(turns):
                key = sample.id if turns == 1 else f"{sample.id}#{turn + 1}"
                requests.append(Request(sample.images, self._prompt(sample, turn, protocol), key))
        return requests

    def calibration(
        self, samples: Sequence[ChoiceSample], protocol: AnswerProtocol
    ) -> list[tuple[Request, str]]:
        """Each question, not rotated, with the letter of the right option."""
        return [
            (Request(s.images, self._prompt(s, 0, protocol), s.id), s.answers[0]) for s in samples
        ]

    def _prompt(self, sample: ChoiceSample, turn: int, protocol: AnswerProtocol) -> str:
        if not sample.options and self.prompt is None:  # there is no letter to ask for
            return GENERAL_PROTOCOLS[AnswerFormat.SHORT_ANSWER].prompt(sample.question)
        if sample.listed:
            return protocol.prompt(sample.question)
        options = rotated(sample.options, turn)
        lines = [f"{name}. {text}" for name, text in zip(sample.letters, options, strict=True)]
        return protocol.prompt("\n".join([sample.question, *lines]))

    def scorer(self, samples: Sequence[ChoiceSample]) -> "ChoiceScorer":
        """Accuracies by the option's or the data's rule."""
        return ChoiceScorer(self.rule or "", self.circular)


class ChoiceScorer(Scorer):
    """Accuracy of outputs. rule: "" for the samples' own."""

    def __init__(self, rule: str, circular: bool) -> None:
        self.rule, self.circular = rule, circular

    def values(self, samples: Sequence[ChoiceSample], outputs: Sequence[str]) -> list[float]:
        """100 for each question that is right in all rotations, 0 for any other."""
        return [
            100.0 * all(self._right(sample, output))
            for sample, output in zip(samples, outputs, strict=True)
        ]

    def _right(self, sample: ChoiceSample, output: str) -> list[bool]:
        """Whether each output of a sample is right; outputs are on lines of their own."""
        texts = output.split("\n")
        if not sample.options:
            return [is_open_answer(text, sample.answers) for text in texts]
        return [option == sample.answers[0] for option in self._options(sample, output)]

    def _options(self, sample: ChoiceSample, output: str) -> list[str]:
        """The option that each output of a sample names, by its letter before any rotation."""
        read = READERS[self.rule or sample.rule or "letter"]
        letters = sample.letters
        named = [
            read(text, dict(zip(letters, rotated(sample.options, turn), strict=True)))
            for turn, text in enumerate(output.split("\n"))
        ]
        return [
            letters[(letters.index(name) + turn) % len(letters)] if name in letters else "-"
            for turn, name in enumerate(named)
        ]

    def score(self, samples: Sequence[ChoiceSample], outputs: Sequence[str]) -> Evaluation:
        """Accuracy, overall and by type; with rotations, that of single outputs, too."""
        primary = CIRCULAR if self.circular else ACCURACY
        values = {primary: self.values(samples, outputs)}
        if self.circular:
            shares = [self._right(s, output) for s, output in zip(samples, outputs, strict=True)]
            values[ACCURACY] = [100 * sum(right) / len(right) for right in shares]
        return Evaluation(
            primary=primary,
            metrics=mean_percentages(samples, values),
            per_sample=values,
            predictions=[
                Prediction(
                    s.id,
                    s.images,
                    s.question,
                    output,
                    _expected(s),
                    value,
                    " ".join(self._options(s, output)) if s.options else None,
                )
                for s, output, value in zip(samples, outputs, values[primary], strict=True)
            ],
        )


def rotated(options: Sequence[str], turn: int) -> tuple[str, ...]:
    """The options, with the first `turn` moved to the end.

    >>> rotated(("x", "y", "z"), 1)
    ('y', 'z', 'x')
    """
    return (*options[turn:], *options[:turn])


def _expected(sample: ChoiceSample) -> str:
    if not sample.options:
        return sample.answers[0]
    text = sample.options[sample.letters.index(sample.answers[0])]
    return f"{sample.answers[0]}. {text}" if text else sample.answers[0]
