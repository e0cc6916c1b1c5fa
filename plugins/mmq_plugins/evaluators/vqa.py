"""VQAv2 accuracy by the official rule, overall and per answer type."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmq.asking import QuestionEvaluator
from mmq.contracts import Evaluation, Metric, Prediction, QuestionSample
from mmq.stats import mean_metric, name_part
from mmq_plugins.evaluators.vqa_answers import soft_accuracy


@dataclass
class Vqa(QuestionEvaluator):
    """Soft accuracy against ten annotators, in percent."""

    task: ClassVar[str] = "vqa"
    bounds: ClassVar[tuple[float, float] | None] = (0, 100)

    def score(self, samples: Sequence[QuestionSample], answers: Sequence[str]) -> Evaluation:
        """Accuracies of given answers; vqa/accuracy is the score."""
        return score_answers(samples, answers)

    def values(self, samples: Sequence[QuestionSample], answers: Sequence[str]) -> list[float]:
        """The accuracy of every answer."""
        return [100 * score for score in _scores(samples, answers)]


def _scores(samples: Sequence[QuestionSample], answers: Sequence[str]) -> list[float]:
    """Soft accuracy of every answer, 0 to 1."""
    return [
        soft_accuracy(answer, sample.answers)
        for sample, answer in zip(samples, answers, strict=True)
    ]


def score_answers(samples: Sequence[QuestionSample], answers: Sequence[str]) -> Evaluation:
    """Accuracy of given answers, overall and for every answer type that occurs."""
    scores = _scores(samples, answers)
    metrics = {"vqa/accuracy": _accuracy(samples, scores)}
    kinds = [name_part(sample.answer_type) for sample in samples]
    for name in sorted(set(kinds)):
        chosen = [k for k, kind in enumerate(kinds) if kind == name]
        metrics[f"vqa/accuracy_{name}"] = _accuracy(
            [samples[k] for k in chosen], [scores[k] for k in chosen]
        )
    return Evaluation(
        primary="vqa/accuracy",
        metrics=metrics,
        per_sample={"vqa/accuracy": [100 * score for score in scores]},
        predictions=[
            Prediction(s.id, s.image, s.question, answer, most_common(s.answers), 100 * score)
            for s, answer, score in zip(samples, answers, scores, strict=True)
        ],
    )


def _accuracy(samples: Sequence[QuestionSample], scores: Sequence[float]) -> Metric:
    return mean_metric(scores, [sample.image_id for sample in samples], scale=100)


def most_common(answers: Sequence[str]) -> str:
    """The answer that most annotators gave."""
    return max(answers, key=answers.count)
