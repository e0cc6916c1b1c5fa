"""What every evaluator must hold, tried on the embedded model and scenes."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mmq.contracts import Evaluation
from mmq.contracts.evaluator import Evaluator
from mmq.data.source import find_source
from mmq.errors import InputError
from mmq.evaluation.generating import InParts
from mmq.models.loading import LoadedModel, load_model

SAMPLES = 12


def _silent(items: Iterable[Any], description: str) -> Iterable[Any]:
    return items


@functools.cache
def _model(name: str) -> LoadedModel:
    return load_model(name)


@functools.cache
def _samples(dataset: str, task: str) -> tuple[Any, ...]:
    return tuple(find_source(task, dataset).samples())


class EvaluatorContract(ABC):
    """Subclass it and implement `make`; name another model or data set where yours needs it."""

    model_name = "embedded-blip2"
    dataset_name = "scenes"

    @abstractmethod
    def make(self) -> Evaluator:
        """The evaluator under test, with options that make it quick."""

    def _evaluate(self, evaluator: Evaluator, samples: tuple[Any, ...]) -> Evaluation:
        return evaluator.evaluate(_model(self.model_name), samples, _silent)

    def test_no_samples_are_refused_before_any_model_is_loaded(self) -> None:
        with pytest.raises(InputError):
            self.make().check_samples((), ())

    @contextmanager
    def _prepared(self) -> Iterator[tuple[Evaluator, tuple[Any, ...]]]:
        evaluator = self.make()
        evaluator.resolve(_model(self.model_name).family)
        samples = _samples(self.dataset_name, evaluator.task)
        evaluator.check_samples(samples[:SAMPLES], samples)
        evaluator.check()
        evaluator.prepare(samples)
        try:
            yield evaluator, samples[:SAMPLES]
        finally:
            evaluator.close()

    def test_scores_are_finite_and_lie_in_their_intervals(self) -> None:
        with self._prepared() as (evaluator, samples):
            evaluation = self._evaluate(evaluator, samples)
        assert evaluation.score is evaluation.metrics[evaluation.primary]
        assert evaluation.score.n == len(samples)
        assert all(evaluation.undefined.values()), "an undefined metric needs a reason"
        for metric in evaluation.metrics.values():
            assert math.isfinite(metric.value)
            if metric.low is not None and metric.high is not None:
                assert metric.low <= metric.value <= metric.high

    def test_there_is_a_value_and_a_prediction_for_every_sample(self) -> None:
        with self._prepared() as (evaluator, samples):
            evaluation = self._evaluate(evaluator, samples)
            if isinstance(evaluator, InParts) and evaluator.bounds is not None:
                self._check_parts(evaluator, samples, evaluation)
        assert [p.sample_id for p in evaluation.predictions] == [s.id for s in samples]
        assert [p.images for p in evaluation.predictions] == [s.images for s in samples]
        for values in evaluation.per_sample.values():
            assert len(values) == len(samples)
            assert all(map(math.isfinite, values))

    def _check_parts(
        self, evaluator: InParts, samples: tuple[Any, ...], evaluation: Evaluation
    ) -> None:
        """What was said is worth the same alone, and lies in its bounds."""
        said = [prediction.text for prediction in evaluation.predictions]
        each = evaluation.per_sample[evaluation.primary]
        low, high = evaluator.bounds or (-math.inf, math.inf)
        for value, expected in zip(evaluator.values(samples, said), each, strict=True):
            assert low <= value <= high
            assert math.isclose(value, expected, abs_tol=1e-9)

    def test_the_same_model_scores_the_same_again(self) -> None:
        with self._prepared() as (evaluator, samples):
            first, second = (self._evaluate(evaluator, samples) for _ in range(2))
        assert first.metrics == second.metrics
        assert [p.text for p in first.predictions] == [p.text for p in second.predictions]

    def test_a_sample_scores_the_same_in_a_smaller_set(self) -> None:
        with self._prepared() as (evaluator, samples):
            whole, part = (
                self._evaluate(evaluator, samples),
                self._evaluate(evaluator, samples[:5]),
            )
        if evaluator.pooled:
            return
        for name, values in part.per_sample.items():
            assert list(values) == list(whole.per_sample[name][:5])
