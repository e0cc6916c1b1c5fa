"""Short answers to questions, compared by a published rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmq.contracts import Evaluation, Prediction, QuestionEvaluator, QuestionSample, Scorer
from mmq.errors import InputError
from mmq_plugins.evaluators.answer_rules import METRICS, Metric, best
from mmq_plugins.evaluators.question_types import mean_percentages
from mmq_plugins.evaluators.vqa_answers import check_answers


@dataclass(frozen=True)
class ShortAnswer(QuestionEvaluator):
    """Percentage of right answers by a rule: --metric exact, relaxed, anls or contains.

    metric: by default the one that the data set's authors use (ChartQA: relaxed; DocVQA: anls;
    OCRBench: contains), and exact for other data. Each output counts with the answer that fits it
    best.
    """

    version: ClassVar[int] = 1
    task: ClassVar[str] = "short-answer"
    bounds: ClassVar[tuple[float, float] | None] = (0, 100)

    metric: Metric | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in (None, *METRICS):
            raise ValueError(f"metric: {self.metric!r} is not one of {list(METRICS)}")

    def check_samples(
        self, samples: Sequence[QuestionSample], everything: Sequence[QuestionSample]
    ) -> None:
        """InputError for a question without an answer."""
        super().check_samples(samples, everything)
        check_answers(samples)
        self._metric(everything)

    def scorer(self, samples: Sequence[QuestionSample]) -> "ShortAnswerScorer":
        """Accuracies by the option's or the data's metric."""
        return ShortAnswerScorer(self._metric(samples))

    def _metric(self, samples: Sequence[QuestionSample]) -> str:
        """The metric of all samples; InputError if their authors use different ones."""
        if self.metric:
            return self.metric
        metrics = {getattr(sample, "metric", "") or "exact" for sample in samples}
        if len(metrics) > 1:
            raise InputError(
                f"metric: the samples are scored differently ({', '.join(sorted(metrics))}); "
                f"choose one with --metric"
            )
        (metric,) = metrics or {"exact"}
        if metric not in METRICS:
            raise InputError(
                f"metric: the data asks for {metric!r}, which is not one of {list(METRICS)}; "
                f"choose one with --metric"
            )
        return metric


class ShortAnswerScorer(Scorer):
    """Values of outputs by one rule, overall and by type of question."""

    def __init__(self, metric: str) -> None:
        self.metric = metric

    def values(self, samples: Sequence[QuestionSample], outputs: Sequence[str]) -> list[float]:
        """The percentage of each output."""
        return [
            100 * best(self.metric, output, [a for a in sample.answers if a], sample.answer_type)
            for sample, output in zip(samples, outputs, strict=True)
        ]

    def score(self, samples: Sequence[QuestionSample], outputs: Sequence[str]) -> Evaluation:
        """The mean, overall and by type."""
        primary = f"short-answer/{self.metric}"
        values = self.values(samples, outputs)
        return Evaluation(
            primary=primary,
            metrics=mean_percentages(samples, {primary: values}),
            per_sample={primary: values},
            predictions=[
                Prediction(s.id, s.images, s.question, output, _shown(s.answers), value)
                for s, output, value in zip(samples, outputs, values, strict=True)
            ],
        )


def _shown(answers: Sequence[str]) -> str:
    return max((answer for answer in answers if answer), key=list(answers).count)
