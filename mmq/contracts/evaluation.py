"""What an evaluation found: scores, one value per sample, and what the model said."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmq.contracts.images import ImageRef
from mmq.contracts.metric import METRIC_NAME, Metric


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model said about one sample, and what that was worth."""

    sample_id: str
    images: tuple[ImageRef, ...]
    prompt: str
    text: str
    expected: str
    score: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", float(self.score))  # numpy's numbers are no JSON


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of one evaluation. `primary` names the metric that a search maximizes.

    `per_sample` holds one value per sample for every metric that has one, in the samples' order.
    `undefined` names the metrics that these data or this machine cannot give, each with the
    reason: a number would be read as a score.
    """

    primary: str
    metrics: Mapping[str, Metric]
    per_sample: Mapping[str, Sequence[float]]
    predictions: Sequence[Prediction]
    undefined: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if both := sorted(self.undefined.keys() & self.metrics.keys()):
            raise ValueError(f"undefined: {both} have scores")
        if self.primary not in self.metrics:
            raise ValueError(f"primary: {self.primary!r} is not among {sorted(self.metrics)}")
        for name, metric in self.metrics.items():
            if not METRIC_NAME.fullmatch(name):
                raise ValueError(f"{name!r}: metric names have letters, digits, spaces and _-./")
            if not math.isfinite(metric.value):
                raise ValueError(f"{name}: the score is {metric.value}, not a number")
        for name, values in self.per_sample.items():
            if len(values) != len(self.predictions):
                raise ValueError(
                    f"{name}: {len(values)} values for {len(self.predictions)} predictions"
                )

    def right_but_worthless(self) -> list[Prediction]:
        """Predictions that equal the expected answer, but for case and spaces, and score 0."""
        return [p for p in self.predictions if p.score == 0 and _same(p.text, p.expected)]

    @property
    def score(self) -> Metric:
        """The metric that a search maximizes."""
        return self.metrics[self.primary]


def _same(text: str, expected: str) -> bool:
    text = " ".join(text.lower().split())
    return bool(text) and text == " ".join(expected.lower().split())
