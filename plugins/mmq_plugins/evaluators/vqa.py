"""VQAv2 accuracy by a named rule, overall and per answer type."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, get_args

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
    FEWEST_ANSWERS,
    Rule,
    check_answers,
    check_rule,
    exact_match,
    soft_accuracy,
)

log = logging.getLogger(__name__)

ACCURACY, EXACT, MIXED = "vqa/accuracy", "vqa/exact_match", "vqa/mixed"


@dataclass(frozen=True)
class Vqa(QuestionEvaluator):
    """Soft accuracy against ten annotators, in percent: --rule lavis or official.

    rule: `lavis` is the official code before March 2021, which the paper and related work use;
    `official` is the code since then. Questions with fewer than four answers are scored by exact
    match, under a separate name.
    """

    version: ClassVar[int] = 1
    task: ClassVar[str] = "vqa"
    bounds: ClassVar[tuple[float, float] | None] = (0, 100)

    rule: Rule = "lavis"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.rule, get_args(Rule))

    def check_samples(
        self, samples: Sequence[QuestionSample], everything: Sequence[QuestionSample]
    ) -> None:
        """InputError for a question without answers, a warning if the rule needs more."""
        super().check_samples(samples, everything)
        check_answers(samples)
        few = sum(len(s.answers) < FEWEST_ANSWERS for s in samples)
        if few:
            log.warning(
                "%d of %d questions have fewer than %d answers, so a correct one could not score "
                "100: they are scored by exact match with any of them, and the score is %s",
                few, len(samples), FEWEST_ANSWERS, primary_of(everything),
            )  # fmt: skip

    def scorer(self, samples: Sequence[QuestionSample]) -> "VqaScorer":
        """Accuracies with the names of the whole set, also for subsets."""
        return VqaScorer(self.rule, primary_of(samples))


class VqaScorer(Scorer):
    """Accuracies of outputs; the score is vqa/accuracy if all questions have enough answers."""

    def __init__(self, rule: Rule, primary: str) -> None:
        self.rule, self.primary = rule, primary

    def score(self, samples: Sequence[QuestionSample], outputs: Sequence[str]) -> Evaluation:
        """Accuracy overall and per answer type."""
        return score_answers(samples, outputs, self.rule, self.primary)

    def values(self, samples: Sequence[QuestionSample], outputs: Sequence[str]) -> list[float]:
        """The accuracy of each output."""
        return [100 * score for score in _scores(samples, outputs, self.rule)]


def primary_of(samples: Sequence[QuestionSample]) -> str:
    """The name of the score on a set, by its questions' numbers of answers."""
    enough = {len(sample.answers) >= FEWEST_ANSWERS for sample in samples}
    return MIXED if len(enough) == 2 else EXACT if enough == {False} else ACCURACY


def _scores(samples: Sequence[QuestionSample], answers: Sequence[str], rule: Rule) -> list[float]:
    """Every answer's soft accuracy or exact match, 0 to 1."""
    return [
        soft_accuracy(answer, sample.answers, rule)
        if len(sample.answers) >= FEWEST_ANSWERS
        else float(exact_match(answer, sample.answers))
        for sample, answer in zip(samples, answers, strict=True)
    ]


def score_answers(
    samples: Sequence[QuestionSample],
    answers: Sequence[str],
    rule: Rule = "lavis",
    primary: str | None = None,
) -> Evaluation:
    """Accuracy of answers, overall and per answer type.

    primary: the score's name, by default that of `primary_of`. A mixed set also has the soft
    accuracy and the exact match of the questions that allow them.
    """
    primary = primary or primary_of(samples)
    scores = _scores(samples, answers, rule)
    groups: dict[str, list[int]] = {primary: list(range(len(samples)))}
    if primary == MIXED:
        for k, sample in enumerate(samples):
            soft = len(sample.answers) >= FEWEST_ANSWERS
            groups.setdefault(ACCURACY if soft else EXACT, []).append(k)
    kinds = [name_part(sample.answer_type) for sample in samples]
    for name in sorted(set(kinds) - {""}):
        groups[f"{primary}_{name}"] = [k for k, kind in enumerate(kinds) if kind == name]
    return Evaluation(
        primary=primary,
        metrics={
            name: _accuracy([samples[k] for k in indices], [scores[k] for k in indices])
            for name, indices in groups.items()
        },
        per_sample={primary: [100 * score for score in scores]},
        predictions=[
            Prediction(s.id, s.images, s.question, answer, most_common(s.answers), 100 * score)
            for s, answer, score in zip(samples, answers, scores, strict=True)
        ],
    )


def _accuracy(samples: Sequence[QuestionSample], scores: Sequence[float]) -> Metric:
    return mean_metric(scores, [sample.image_id for sample in samples], scale=100)


def most_common(answers: Sequence[str]) -> str:
    """The answer that most annotators gave."""
    return max(answers, key=answers.count)
