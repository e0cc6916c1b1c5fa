"""The contract of every evaluator, tested on the embedded models and scenes."""

import dataclasses
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mmq.contracts import Evaluation
from mmq.contracts.evaluator import Evaluator, GeneratingEvaluator
from mmq.data.source import find_source
from mmq.errors import InputError
from mmq.evaluation.generating import (
    Task,
    calibration_pairs,
    check_requests_per_sample,
    evaluate,
    protocol_for,
)
from mmq.models.loading import LoadedModel, load_model

SAMPLES = 12


def _silent(items: Iterable[Any], description: str) -> Iterable[Any]:
    return items


@functools.cache
def _model(name: str) -> LoadedModel:
    return load_model(name)


@functools.cache
def _samples(dataset: str, task: str) -> tuple[Any, ...]:
    return tuple(find_source(task, dataset, "").samples())


class EvaluatorContract(ABC):
    """Subclass it and implement `make`; set `model_name` and `dataset_name` if needed."""

    model_name = "embedded-blip2"
    dataset_name = "scenes"

    @abstractmethod
    def make(self) -> Evaluator:
        """The evaluator under test, with options that make it quick."""

    def samples(self) -> tuple[Any, ...]:
        """The evaluation set: that of `dataset_name`, or your own."""
        evaluator = self.make()
        return _samples(self.dataset_name, evaluator.samples_of or evaluator.task)

    @contextmanager
    def _opened(self) -> Iterator[Task]:
        evaluator, everything = self.make(), self.samples()
        evaluator.check_samples(everything[:SAMPLES], everything)
        evaluator.check()
        with Task(evaluator, everything[:SAMPLES], everything) as task:
            yield task

    @pytest.fixture(scope="class")
    def task(self) -> Iterator[Task]:
        """The opened task: a scorer may take seconds to start its programs."""
        with self._opened() as task:
            yield task

    @pytest.fixture(scope="class")
    def evaluation(self, task: Task) -> Evaluation:
        """The first evaluation of the task."""
        return self._evaluate(task)

    def _evaluate(self, task: Task) -> Evaluation:
        return evaluate(task, _model(self.model_name), _silent)

    def test_is_a_frozen_dataclass_of_options_with_a_version(self) -> None:
        evaluator = self.make()
        assert isinstance(evaluator, Evaluator)
        assert type(evaluator).version >= 1
        assert evaluator == dataclasses.replace(evaluator)
        assert hash(evaluator) == hash(dataclasses.replace(evaluator))
        with pytest.raises(dataclasses.FrozenInstanceError):
            evaluator.task = "other"  # type: ignore[misc]

    def test_no_samples_are_refused_before_any_model_is_loaded(self) -> None:
        with pytest.raises(InputError):
            self.make().check_samples((), ())

    def test_each_sample_has_its_requests_which_show_its_pictures(self) -> None:
        evaluator = self.make()
        if not isinstance(evaluator, GeneratingEvaluator):
            pytest.skip("it ranks, so it requests nothing")
        protocol = protocol_for(evaluator, _model(self.model_name))
        assert protocol is not None
        samples = self.samples()[:SAMPLES]
        requests = evaluator.requests(samples, protocol)
        counts = check_requests_per_sample(evaluator, samples, requests)
        assert min(counts) >= 1
        assert all(request.images for request in requests)

    def test_calibration_pairs_are_one_per_sample_or_refused(self) -> None:
        evaluator, samples = self.make(), self.samples()[:SAMPLES]
        protocol = protocol_for(evaluator, _model(self.model_name))
        try:
            pairs = calibration_pairs(evaluator, samples, protocol)
        except InputError:
            return
        assert [request.sample_id for request, _ in pairs] == [sample.id for sample in samples]

    def test_scores_are_finite_and_lie_in_their_intervals(
        self, task: Task, evaluation: Evaluation
    ) -> None:
        assert evaluation.score is evaluation.metrics[evaluation.primary]
        assert evaluation.score.n == len(task.samples)
        assert all(evaluation.undefined.values()), "an undefined metric needs a reason"
        for metric in evaluation.metrics.values():
            assert math.isfinite(metric.value)
            if metric.low is not None and metric.high is not None:
                assert metric.low <= metric.value <= metric.high

    def test_there_is_a_value_and_a_prediction_for_every_sample(
        self, task: Task, evaluation: Evaluation
    ) -> None:
        if isinstance(task.evaluator, GeneratingEvaluator):
            self._check_values(task, evaluation)
        assert [p.sample_id for p in evaluation.predictions] == [s.id for s in task.samples]
        for values in evaluation.per_sample.values():
            assert len(values) == len(task.samples)
            assert all(map(math.isfinite, values))

    def _check_values(self, task: Task, evaluation: Evaluation) -> None:
        """Outputs have the same values alone, all within the bounds."""
        if task.evaluator.bounds is None:
            return
        outputs = [prediction.text for prediction in evaluation.predictions]
        values = evaluation.per_sample[evaluation.primary]
        low, high = task.evaluator.bounds
        for value, expected in zip(task.scorer.values(task.samples, outputs), values, strict=True):
            assert low <= value <= high
            assert math.isclose(value, expected, abs_tol=1e-9)

    def test_the_same_model_scores_the_same_again(
        self, task: Task, evaluation: Evaluation
    ) -> None:
        again = self._evaluate(task)
        assert again.metrics == evaluation.metrics
        assert [p.text for p in again.predictions] == [p.text for p in evaluation.predictions]

    def test_a_scorer_that_is_opened_again_scores_the_same(self, evaluation: Evaluation) -> None:
        with self._opened() as task:
            assert self._evaluate(task).metrics == evaluation.metrics

    def test_a_sample_scores_the_same_in_a_smaller_set(
        self, task: Task, evaluation: Evaluation
    ) -> None:
        part = self._evaluate(dataclasses.replace(task, samples=task.samples[:5]))
        if task.evaluator.pooled:
            return
        for name, values in part.per_sample.items():
            assert list(values) == list(evaluation.per_sample[name][:5])
