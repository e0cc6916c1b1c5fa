"""GQA accuracy: exact match after the official VQA normalization, overall and by type."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmq.asking import QuestionEvaluator
from mmq.contracts import Evaluation, Metric, Prediction, QuestionSample
from mmq.stats import mean_metric, name_part
from mmq_plugins.evaluators.vqa_answers import normalize_answer

OPEN = "query"  # GQA's structural type of open questions; all others offer their answers


@dataclass
class Gqa(QuestionEvaluator):
    """Share of answers that equal the right one, in percent."""

    task: ClassVar[str] = "gqa"
    bounds: ClassVar[tuple[float, float] | None] = (0, 100)

    def score(self, samples: Sequence[QuestionSample], answers: Sequence[str]) -> Evaluation:
        """Accuracies of given answers; gqa/accuracy is the score."""
        return score_answers(samples, answers)

    def values(self, samples: Sequence[QuestionSample], answers: Sequence[str]) -> list[float]:
        """100 for every right answer, 0 for any other."""
        return [100 * score for score in _scores(samples, answers)]


def exact_match(answer: str, right: str) -> bool:
    """Whether two answers are the same after normalization."""
    return normalize_answer(answer) == normalize_answer(right)


def _scores(samples: Sequence[QuestionSample], answers: Sequence[str]) -> list[float]:
    """1 for every right answer, 0 for any other."""
    return [
        float(exact_match(answer, sample.answers[0]))
        for sample, answer in zip(samples, answers, strict=True)
    ]


def score_answers(samples: Sequence[QuestionSample], answers: Sequence[str]) -> Evaluation:
    """Accuracy of given answers, overall, and by type where the file has types."""
    scores = _scores(samples, answers)
    groups: dict[str, list[int]] = {}
    for k, sample in enumerate(samples):
        for name, value in sample.types:
            if name in ("structural", "semantic"):
                groups.setdefault(f"{name}_{name_part(value)}", []).append(k)
            if name == "structural":
                groups.setdefault("open" if value == OPEN else "binary", []).append(k)
    metrics = {"gqa/accuracy": _accuracy(samples, scores, range(len(samples)))}
    for name, chosen in sorted(groups.items()):
        metrics[f"gqa/accuracy_{name}"] = _accuracy(samples, scores, chosen)
    return Evaluation(
        primary="gqa/accuracy",
        metrics=metrics,
        per_sample={"gqa/accuracy": [100 * score for score in scores]},
        predictions=[
            Prediction(s.id, s.image, s.question, answer, s.answers[0], 100 * score)
            for s, answer, score in zip(samples, answers, scores, strict=True)
        ],
    )


def _accuracy(
    samples: Sequence[QuestionSample], scores: Sequence[float], chosen: Sequence[int]
) -> Metric:
    images = [samples[k].image_id for k in chosen]
    return mean_metric([scores[k] for k in chosen], images, scale=100)
