"""The result of an evaluation: scores, one value per sample, and the model's outputs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmq.contracts.images import ImageRef
from mmq.contracts.metric import METRIC_NAME, Metric


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's output for one sample, and its score.

    answer: what the evaluator's rule reads from the output, e.g. a letter; flips compare it. By
    default the whole output.
    """

    sample_id: str
    images: tuple[ImageRef, ...]
    prompt: str
    text: str
    expected: str
    score: float
    answer: str | None = None

    def __post_init__(self) -> None:
        if self.answer is None:
            object.__setattr__(self, "answer", self.text)
        object.__setattr__(
            self, "score", float(self.score)
        )  # numpy numbers are not JSON serializable


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of one evaluation. `primary` names the metric that a search maximizes.

    `per_sample` holds one value per sample for every metric that has one, in the samples' order.
    `undefined` has the metrics that cannot be computed on these data or this machine, each with
    the reason.
    """

    primary: str
    metrics: Mapping[str, Metric]
    per_sample: Mapping[str, Sequence[float]]
    predictions: Sequence[Prediction]
    undefined: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if both := sorted(self.undefined.keys() & self.metrics.keys()):
            raise ValueError(f"undefined: {both} also have scores")
        if self.primary not in self.metrics:
            raise ValueError(f"primary: {self.primary!r} is not one of {sorted(self.metrics)}")
        for name, metric in self.metrics.items():
            if not METRIC_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r}: metric names may contain only letters, digits, spaces and _-./"
                )
            if not math.isfinite(metric.value):
                raise ValueError(f"{name}: the score is {metric.value}, not a finite number")
        for name, values in self.per_sample.items():
            if len(values) != len(self.predictions):
                raise ValueError(
                    f"{name}: {len(values)} values for {len(self.predictions)} predictions"
                )

    def right_but_worthless(self) -> list[Prediction]:
        """Predictions that score 0 but equal the expected answer, ignoring case and spaces."""
        return [p for p in self.predictions if p.score == 0 and _same(p.text, p.expected)]

    @property
    def score(self) -> Metric:
        """The metric that a search maximizes."""
        return self.metrics[self.primary]


def _same(text: str, expected: str) -> bool:
    text = " ".join(text.lower().split())
    return bool(text) and text == " ".join(expected.lower().split())
