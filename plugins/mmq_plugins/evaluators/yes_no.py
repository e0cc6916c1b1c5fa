"""Yes or no: accuracy, and POPE's precision, recall, F1 and share of yes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from mmq.contracts import (
    Evaluation,
    Metric,
    Prediction,
    QuestionEvaluator,
    QuestionSample,
    Scorer,
)
from mmq.errors import InputError
from mmq.evaluation.stats import corpus_metrics, mean_metric
from mmq_plugins.evaluators.question_types import mean_percentages
from mmq_plugins.evaluators.vqa_answers import check_answers, check_rule

Rule = Literal["pope", "word"]
ACCURACY = "yes-no/accuracy"
YES, NO, NEITHER = "yes", "no", ""
SPELLINGS = {"yes": YES, "y": YES, "true": YES, "1": YES, "no": NO, "n": NO, "false": NO, "0": NO}


@dataclass(frozen=True)
class YesNo(QuestionEvaluator):
    """Percentage of right answers to yes-or-no questions; POPE's other scores, too.

    rule: `pope` reads "no" if the first sentence contains No, no or not, and "yes" from anything
    else, as POPE's script does. `word` needs yes or no as the first word; other outputs are wrong
    and count as neither. The share of outputs without either word is `yes-no/unclear`.
    """

    version: ClassVar[int] = 2
    task: ClassVar[str] = "yes-no"
    bounds: ClassVar[tuple[float, float] | None] = (0, 100)

    rule: Rule = "pope"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.rule, get_args(Rule))

    def check_samples(
        self, samples: Sequence[QuestionSample], everything: Sequence[QuestionSample]
    ) -> None:
        """InputError for a question whose answer is neither yes nor no."""
        super().check_samples(samples, everything)
        check_answers(samples)
        other = [s for s in samples if s.answers[0].strip().lower() not in SPELLINGS]
        if other:
            raise InputError(
                f"data: {len(other)} of {len(samples)} answers are neither yes nor no (nor true, "
                f"false, 1, 0), first {other[0].answers[0]!r} of the sample {other[0].id}; remove "
                f"these questions, or use --task short-answer"
            )

    def scorer(self, samples: Sequence[QuestionSample]) -> "YesNoScorer":
        """Accuracy and POPE's scores by the rule."""
        return YesNoScorer(self.rule)


class YesNoScorer(Scorer):
    """Scores of outputs; the score is yes-no/accuracy."""

    def __init__(self, rule: str) -> None:
        self.read = {"pope": read_pope, "word": read_word}[rule]

    def values(self, samples: Sequence[QuestionSample], outputs: Sequence[str]) -> list[float]:
        """100 for each right output, 0 for any other."""
        return [
            100.0 * (self.read(output) == expected(sample))
            for sample, output in zip(samples, outputs, strict=True)
        ]

    def score(self, samples: Sequence[QuestionSample], outputs: Sequence[str]) -> Evaluation:
        """Accuracy, overall and by type, and the scores that are pooled over all samples."""
        values = self.values(samples, outputs)
        metrics = mean_percentages(samples, {ACCURACY: values})
        pooled, undefined = self._pooled(samples, outputs)
        return Evaluation(
            primary=ACCURACY,
            metrics=metrics | pooled,
            per_sample={ACCURACY: values},
            predictions=[
                Prediction(
                    s.id, s.images, s.question, output, expected(s), value, self.read(output)
                )
                for s, output, value in zip(samples, outputs, values, strict=True)
            ],
            undefined=undefined,
        )

    def _pooled(
        self, samples: Sequence[QuestionSample], outputs: Sequence[str]
    ) -> tuple[dict[str, Metric], dict[str, str]]:
        """Metrics of the whole set, and why some are undefined."""
        pictures = [sample.image_id for sample in samples]
        says_yes = np.array([self.read(output) == YES for output in outputs])
        right = np.array([expected(sample) == YES for sample in samples])
        unclear = [100.0 * (read_word(output) == NEITHER) for output in outputs]
        metrics = {
            "yes-no/yes_ratio": mean_metric(
                (100.0 * says_yes).tolist(), pictures, bounds=(0, 100)
            ),
            "yes-no/unclear": mean_metric(unclear, pictures, bounds=(0, 100)),
        }
        undefined: dict[str, str] = {}
        hits = says_yes & right
        for name, wrong, reason in (
            ("precision", says_yes & ~right, "no output says yes"),
            ("recall", ~says_yes & right, "no expected answer is yes"),
            ("F1", says_yes ^ right, "no output and no expected answer is yes"),
        ):
            weight = 2 if name == "F1" else 1
            if not (hits | wrong).any():
                undefined[f"yes-no/{name}"] = reason
                continue
            columns = np.stack([weight * hits, wrong], axis=1).astype(float)
            (metric,) = corpus_metrics(columns, pictures, _share, bounds=(0, 100))
            metrics[f"yes-no/{name}"] = metric
        return metrics, undefined


def _share(sums: np.ndarray) -> np.ndarray:
    """Percentage of hits, 0 in a resample that has neither hits nor errors."""
    total = sums.sum()
    return np.array([100 * sums[0] / total if total else 0.0])


def expected(sample: QuestionSample) -> str:
    """The sample's answer as yes or no."""
    return SPELLINGS[sample.answers[0].strip().lower()]


def read_pope(output: str) -> str:
    """POPE's rule (Li et al. 2023, evaluate.py): no, if the first sentence denies; else yes.

    >>> read_pope("No, there is not."), read_pope("There is no dog"), read_pope("cat")
    ('no', 'no', 'yes')
    """
    words = output.split(".")[0].replace(",", "").split(" ")
    return NO if {"No", "not", "no"} & {*words} else YES


def read_word(output: str) -> str:
    """Yes or no, if the first word is; or else "".

    >>> read_word("Yes, it is"), read_word("**No**"), read_word("There is no dog")
    ('yes', 'no', '')
    """
    words = re.findall(r"[^\W_]+", output.lower())
    return words[0] if words and words[0] in (YES, NO) else NEITHER
