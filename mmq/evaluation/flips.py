"""Flips: the answers of a quantized model that differ from the unquantized model's.

A quantized model can give as many correct answers as the unquantized one while it changes many
of them: flips show a change before the score does (Dutta et al. 2024, "Accuracy is Not All You
Need").
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mmq.contracts.evaluation import Evaluation, Prediction
from mmq.eval_spec import EvalSpec
from mmq.evaluation.stats import mean_metric
from mmq.system import sealed
from mmq.system.hashing import digest
from mmq.system.home import home

FLIPS = "flips"  # the metric's name
OF_QUANTIZER = (  # parts of an identity that the unquantized model does not depend on
    "quantizer", "quantizer_distribution", "quantizer_version", "quantizer_options", "calibrated",
    "calibration", "calibration_samples",
)  # fmt: skip
Answers = Mapping[str, str]  # by sample id


class UnquantizedAnswers:
    """The unquantized model's answers on the samples of an eval spec, of any quantizer."""

    def __init__(self, spec: EvalSpec) -> None:
        facts = {k: v for k, v in spec.identity().items() if k not in OF_QUANTIZER}
        self.path = home() / "unquantized" / f"{digest(facts)}.json"

    def get(self) -> Answers | None:
        """The answer to every sample; None if the unquantized model was not evaluated."""
        return sealed.read_json(self.path)

    def put(self, answers: Answers) -> None:
        """Save them; they are the same in every evaluation."""
        if not self.path.exists():
            sealed.write_json(self.path, dict(answers))


def answers_of(predictions: Sequence[Prediction]) -> Answers:
    """The answer to every sample, as the evaluator reads it from the output."""
    return {prediction.sample_id: prediction.answer or "" for prediction in predictions}


def with_flips(evaluation: Evaluation, unquantized: Answers, samples: Sequence[Any]) -> Evaluation:
    """The evaluation with the metric `flips`, in percent, with an interval over pictures.

    Unchanged if an answer of the unquantized model is missing.
    """
    predictions = evaluation.predictions
    if not predictions or any(p.sample_id not in unquantized for p in predictions):
        return evaluation
    pictures = {sample.id: sample.image_id for sample in samples}
    answers = answers_of(predictions)
    flipped = [float(differs(answers[p.sample_id], unquantized[p.sample_id])) for p in predictions]
    clusters = [pictures.get(p.sample_id, p.sample_id) for p in predictions]
    return dataclasses.replace(
        evaluation,
        metrics={**evaluation.metrics, FLIPS: mean_metric(flipped, clusters, scale=100.0)},
        per_sample={**evaluation.per_sample, FLIPS: flipped},
    )


def agreement(evaluation: Evaluation, unquantized: Answers) -> list[float]:
    """1 for every answer that equals the unquantized model's, 0 for the others."""
    return [
        float(not differs(answer, unquantized[sample_id]))
        for sample_id, answer in answers_of(evaluation.predictions).items()
    ]


def differs(answer: str, other: str) -> bool:
    """Whether two answers are different: case and spaces do not count.

    >>> differs("Yes", "yes "), differs("yes", "no")
    (False, True)
    """
    return " ".join(answer.casefold().split()) != " ".join(other.casefold().split())
