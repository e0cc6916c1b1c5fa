"""GQA accuracy: exact match with the correct answer, overall and by type."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from mmq.contracts import (
    Evaluation,
    Metric,
    Prediction,
    QuestionEvaluator,
    QuestionSample,
    Scorer,
)
from mmq.evaluation.stats import mean_metric, name_part
from mmq_plugins.evaluators.vqa_answers import (
    check_answers,
    check_rule,
    normalize_answer,
    normalize_words,
    strip_punctuation,
)

OPEN = "query"  # GQA's structural type of open questions; all others have a choice of answers
Rule = Literal["normalized", "lavis", "official"]


@dataclass(frozen=True)
class Gqa(QuestionEvaluator):
    """Percentage of answers that equal the correct one.

    rule: `normalized` compares both sides after VQA's normalization. `lavis` normalizes only the
    model's answer. `official` compares both unchanged, as GQA's eval.py does, which expects
    normalized answers.
    """

    version: ClassVar[int] = 1
    task: ClassVar[str] = "gqa"
    bounds: ClassVar[tuple[float, float] | None] = (0, 100)

    rule: Rule = "normalized"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.rule, get_args(Rule))

    def check_samples(
        self, samples: Sequence[QuestionSample], everything: Sequence[QuestionSample]
    ) -> None:
        """InputError for a question without an answer."""
        super().check_samples(samples, everything)
        check_answers(samples)

    def scorer(self, samples: Sequence[QuestionSample]) -> "GqaScorer":
        """Accuracies; gqa/accuracy is the score."""
        return GqaScorer(self.rule)


class GqaScorer(Scorer):
    """Accuracies of outputs by one of the rules."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def score(self, samples: Sequence[QuestionSample], outputs: Sequence[str]) -> Evaluation:
        """Accuracy overall and by type."""
        return score_answers(samples, outputs, self.rule)

    def values(self, samples: Sequence[QuestionSample], outputs: Sequence[str]) -> list[float]:
        """100 for each correct output, 0 for any other."""
        return [100 * score for score in _scores(samples, outputs, self.rule)]


def exact_match(answer: str, right: str, rule: Rule = "normalized") -> bool:
    """Whether two answers are equal by a rule."""
    if rule == "official":
        return answer == right
    if rule == "lavis":
        return normalize_words(strip_punctuation(answer)) == right
    return normalize_answer(answer) == normalize_answer(right)


def _scores(samples: Sequence[QuestionSample], answers: Sequence[str], rule: Rule) -> list[float]:
    """1 for each correct answer, 0 for any other."""
    return [
        float(exact_match(answer, sample.answers[0], rule))
        for sample, answer in zip(samples, answers, strict=True)
    ]


def score_answers(
    samples: Sequence[QuestionSample], answers: Sequence[str], rule: Rule = "normalized"
) -> Evaluation:
    """Accuracy of answers, overall, and by type if the file has types."""
    scores = _scores(samples, answers, rule)
    groups: dict[str, list[int]] = {}
    for k, sample in enumerate(samples):
        for name, value in sample.types:
            if name in ("structural", "semantic"):
                groups.setdefault(f"{name}_{name_part(value)}", []).append(k)
            if name == "structural":
                groups.setdefault("open" if value == OPEN else "binary", []).append(k)
    metrics = {"gqa/accuracy": _accuracy(samples, scores, range(len(samples)))}
    for name, indices in sorted(groups.items()):
        metrics[f"gqa/accuracy_{name}"] = _accuracy(samples, scores, indices)
    return Evaluation(
        primary="gqa/accuracy",
        metrics=metrics,
        per_sample={"gqa/accuracy": [100 * score for score in scores]},
        predictions=[
            Prediction(s.id, s.images, s.question, answer, s.answers[0], 100 * score)
            for s, answer, score in zip(samples, answers, scores, strict=True)
        ],
    )


def _accuracy(
    samples: Sequence[QuestionSample], scores: Sequence[float], indices: Sequence[int]
) -> Metric:
    images = [samples[k].image_id for k in indices]
    return mean_metric([scores[k] for k in indices], images, scale=100)
