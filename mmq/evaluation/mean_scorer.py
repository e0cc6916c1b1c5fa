"""The scorer of most evaluators: one value per sample, and their mean with an interval."""

from collections.abc import Callable, Sequence

from mmq.contracts.evaluation import Evaluation, Prediction
from mmq.contracts.evaluator import Scorer
from mmq.contracts.samples import QuestionSample
from mmq.evaluation.stats import mean_metric


class MeanScorer(Scorer):
    """The mean over questions of `value(sample, output)`, logged as `metric`.

    metric: like "docvqa/anls"; the part before the slash groups charts in the MLflow UI. bounds:
    the range of a value.
    """

    def __init__(
        self,
        metric: str,
        value: Callable[[QuestionSample, str], float],
        bounds: tuple[float, float],
    ) -> None:
        self.metric, self.value, self.bounds = metric, value, bounds

    def values(self, samples: Sequence[QuestionSample], outputs: Sequence[str]) -> list[float]:
        """The value of each output; ValueError for one outside the bounds."""
        values = [self.value(s, text) for s, text in zip(samples, outputs, strict=True)]
        low, high = self.bounds
        for sample, value in zip(samples, values, strict=True):
            if not low <= value <= high:  # NaN, too
                raise ValueError(
                    f"{self.metric}: {value} for sample {sample.id!r} is not in "
                    f"[{low:g}, {high:g}]"
                )
        return values

    def score(self, samples: Sequence[QuestionSample], outputs: Sequence[str]) -> Evaluation:
        """The mean, with an interval over pictures."""
        values = self.values(samples, outputs)
        clusters = [sample.image_id for sample in samples]
        return Evaluation(
            primary=self.metric,
            metrics={self.metric: mean_metric(values, clusters, bounds=self.bounds)},
            per_sample={self.metric: values},
            predictions=[
                Prediction(s.id, s.images, s.question, text, s.answers[0], value)
                for s, text, value in zip(samples, outputs, values, strict=True)
            ],
        )
