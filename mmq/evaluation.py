"""What an evaluation found: scores, a value a sample, and what the model said."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmq.stats import METRIC_NAME, Metric


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model said about one sample, and what that was worth."""

    sample_id: str
    image: Path
    prompt: str
    text: str
    expected: str
    score: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", float(self.score))  # numpy's numbers are no JSON


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of one evaluation. `primary` names the metric that a search maximizes.

    `per_sample` holds a value a sample for every metric that has one, in the samples' order.
    """

    primary: str
    metrics: Mapping[str, Metric]
    per_sample: Mapping[str, Sequence[float]]
    predictions: Sequence[Prediction]

    def __post_init__(self) -> None:
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

    @property
    def score(self) -> Metric:
        """The metric that a search maximizes."""
        return self.metrics[self.primary]
