"""Any generation task of lmms-eval by name, e.g. lmms:chartqa, scored by its own code."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Self

from mmq.contracts import (
    AnswerFormat,
    AnswerProtocol,
    Evaluation,
    GeneratingEvaluator,
    Metric,
    Prediction,
    Request,
    Scorer,
    options,
)
from mmq.errors import InputError
from mmq.evaluation.stats import mean_metric, name_part
from mmq_plugins.lmms.benchmark import Benchmark, benchmark
from mmq_plugins.lmms.local_task import LocalTask, open_task
from mmq_plugins.lmms.samples import LmmsSample, TaskImage
from mmq_plugins.lmms.scoring import aggregated, results_of, value_of

ROUNDING = 1e-4  # aggregations that are means may round to four digits
TRIED_EMPTY = 16  # samples that are scored with an empty output before any model is loaded


@dataclass(frozen=True)
class Lmms(GeneratingEvaluator):
    """The score of a task of lmms-eval, with its prompts, decoding and metrics.

    metric: the one to maximize; by default the first that the task declares. max_value: the
    highest value of a sample, e.g. 100; trials are pruned only if the metric is a mean.
    greedy: decode greedily although the task asks for random decoding.
    """

    version: ClassVar[int] = 1
    task: ClassVar[str] = "lmms"
    answer_format: ClassVar[AnswerFormat] = AnswerFormat.FREE
    asks_questions: ClassVar[bool] = True
    name: ClassVar[str] = ""  # of lmms-eval's task

    metric: str | None = None
    max_value: float = 1.0
    greedy: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_value > 0:
            raise ValueError(f"max_value: {self.max_value} is not above 0")
        self._benchmark.primary(self.metric)
        if self._benchmark.samples_tokens and not self.greedy:
            raise InputError(
                f"task: lmms:{self.name} decodes at random, so its scores could not be repeated; "
                f"pass --greedy true to decode greedily"
            )

    @classmethod
    def variant(cls, name: str) -> type[Self]:
        """The evaluator of a task; InputError for one that cannot be scored."""
        benchmark(name)
        return _of_task(cls, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (Lmms, self.name, options.values(self))

    @property
    def _benchmark(self) -> Benchmark:
        if not self.name:
            raise InputError("task: 'lmms' needs the name of a task, e.g. --task lmms:chartqa")
        return benchmark(self.name)

    @property
    def primary(self) -> str:
        """The metric to maximize, as lmms-eval calls it."""
        return self._benchmark.primary(self.metric)

    @property
    def pooled(self) -> bool:  # type: ignore[override]  # it depends on the metric
        """Whether the metric is not a mean over samples."""
        return not self._benchmark.is_mean(self.primary)

    @property
    def bounds(self) -> tuple[float, float] | None:  # type: ignore[override]
        """Of a sample's value."""
        return None if self.pooled else (0.0, self.max_value)

    def protocol(self, model: AnswerProtocol) -> AnswerProtocol:
        """The model's protocol for free text with the task's decoding; options override both."""
        config = replace(model.config, **self._benchmark.decoding)
        return super().protocol(AnswerProtocol(model.template, config))

    def effective_options(self, protocol: AnswerProtocol | None) -> dict[str, Any]:
        """All options, and what identifies the task: its configuration and lmms-eval's version."""
        return super().effective_options(protocol) | {
            "metric": self.primary,
            "lmms_eval": self._benchmark.lmms_eval,
            "lmms_config": self._benchmark.digest,
        }

    def requests(self, samples: Sequence[LmmsSample], protocol: AnswerProtocol) -> list[Request]:
        """The task's prompts in the model's template."""
        return [Request(s.images, protocol.prompt(s.question), s.id) for s in samples]

    def read_output(self, text: str) -> str:
        """The text up to the first of the task's stops, with its line breaks."""
        for stop in self._benchmark.stops:
            text = text.split(stop)[0]
        return text

    def calibration(
        self, samples: Sequence[LmmsSample], protocol: AnswerProtocol
    ) -> list[tuple[Request, str]]:
        """Each prompt with the most frequent right answer."""
        answers = [Counter(sample.answers).most_common(1)[0][0] for sample in samples]
        return list(zip(self.requests(samples, protocol), answers, strict=True))

    def check_samples(
        self, samples: Sequence[LmmsSample], everything: Sequence[LmmsSample]
    ) -> None:
        """Score right answers and empty outputs; InputError for what scoring would fail on."""
        super().check_samples(samples, everything)
        scorer = self.scorer(everything)
        scorer.score(samples, [sample.answers[0] for sample in samples])
        tried = samples[:TRIED_EMPTY]
        scorer.score(tried, [""] * len(tried))

    def scorer(self, samples: Sequence[LmmsSample]) -> "LmmsScorer":
        """The task's own code."""
        image = samples[0].image if len(samples[0].images) == 1 else samples[0].images[0]
        if not isinstance(image, TaskImage):
            raise InputError(f"data: lmms:{self.name} needs data that --dataset lmms reads")
        return LmmsScorer(self, open_task(image.root, image.task, image.split))


class LmmsScorer(Scorer):
    """Scores by a task's process_results and aggregations."""

    def __init__(self, evaluator: Lmms, task: LocalTask) -> None:
        self.evaluator, self.task = evaluator, task
        self.primary, self.highest = evaluator.primary, evaluator.max_value

    def values(self, samples: Sequence[LmmsSample], outputs: Sequence[str]) -> list[float]:
        """The primary metric of each sample; InputError for one outside the bounds."""
        return self._values(samples, self._results(samples, outputs))

    def score(self, samples: Sequence[LmmsSample], outputs: Sequence[str]) -> Evaluation:
        """Every metric of the task, with an interval for those that are a mean."""
        results = self._results(samples, outputs)
        values = self._values(samples, results)
        metrics: dict[str, Metric] = {}
        undefined: dict[str, str] = {}
        for metric in self.evaluator._benchmark.metrics:
            of_metric = [k for k, result in enumerate(results) if metric in result]
            score = self._aggregated(metric, [results[k][metric] for k in of_metric])
            if score is None:
                undefined[self._shown(metric)] = "the task gives no number for these samples"
                continue
            items = [results[k][metric] for k in of_metric]
            metrics[self._shown(metric)] = self._metric(
                metric, score, items, [samples[k].image_id for k in of_metric]
            )
        primary = self._shown(self.primary)
        if primary in undefined:
            raise InputError(
                f"metric: lmms:{self.evaluator.name} gives no number for {self.primary}; choose "
                f"another one with --metric"
            )
        return Evaluation(
            primary=primary,
            metrics=metrics,
            per_sample={primary: values},
            predictions=[
                Prediction(s.id, s.images, s.question, output, s.answers[0], value)
                for s, output, value in zip(samples, outputs, values, strict=True)
            ],
            undefined=undefined,
        )

    def _results(
        self, samples: Sequence[LmmsSample], outputs: Sequence[str]
    ) -> list[Mapping[str, Any]]:
        return [results_of(self.task, s, text) for s, text in zip(samples, outputs, strict=True)]

    def _values(
        self, samples: Sequence[LmmsSample], results: Sequence[Mapping[str, Any]]
    ) -> list[float]:
        name = self.evaluator.name
        missing = [s.id for s, r in zip(samples, results, strict=True) if self.primary not in r]
        if missing:
            raise InputError(
                f"metric: lmms:{name} gives no {self.primary} for {len(missing)} of "
                f"{len(samples)} samples, first {missing[0]}; choose a metric of all samples"
            )
        values = []
        for sample, result in zip(samples, results, strict=True):
            value = value_of(self.task, self.primary, result[self.primary])
            if value is None or not 0 <= value <= self.highest:
                raise InputError(
                    f"metric: {self.primary} of lmms:{name} is {value} for the sample "
                    f"{sample.id}, which is not in 0 to {self.highest:g}; pass its highest value "
                    f"as --max-value, or choose another --metric"
                )
            values.append(value)
        return values

    def _aggregated(self, metric: str, items: Sequence[Any]) -> float | None:
        return aggregated(self.task, metric, items) if items else None

    def _metric(
        self, metric: str, score: float, items: Sequence[Any], pictures: Sequence[str]
    ) -> Metric:
        """The score; with the interval of the mean of the samples' values if it is that mean."""
        values = [value_of(self.task, metric, item) for item in items]
        numbers = [value for value in values if value is not None]
        if len(numbers) < len(values) or abs(sum(numbers) / len(numbers) - score) > ROUNDING:
            return Metric(score, len(items))
        mean = mean_metric(numbers, pictures, bounds=(0.0, self.highest))
        return replace(mean, value=score)

    def _shown(self, metric: str) -> str:
        return f"{name_part(f'lmms-{self.evaluator.name}')}/{name_part(metric)}"


@cache
def _of_task(base: type[Any], name: str) -> type[Any]:
    """A subclass for one task: the task's name is part of a class, as that of every evaluator."""
    place = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    facts = {**place, "task": f"lmms:{name}", "name": name}
    return dataclass(frozen=True)(type(base.__name__, (base,), facts))


def _restore(base: type[Lmms], name: str, values: Mapping[str, Any]) -> Lmms:
    return (base.variant(name) if name else base)(**values)
