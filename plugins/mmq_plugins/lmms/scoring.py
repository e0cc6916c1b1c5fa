"""Scores by a task's own code: results per sample, then the task's aggregation."""

import contextlib
import inspect
import io
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import numpy as np

from mmq.errors import InputError
from mmq_plugins.lmms.local_task import LocalTask, offline
from mmq_plugins.lmms.samples import LmmsSample


def results_of(task: LocalTask, sample: LmmsSample, output: str) -> Mapping[str, Any]:
    """The result of the task's `process_results` for one output, after its filter.

    Some tasks guess at random where they can read no answer: the seed is the sample's.
    """
    with _seeded(sample.id), offline():
        try:
            row = deepcopy(dict(sample.row))  # OK-VQA normalizes the answers of the row itself
            filtered = [_filtered(task, output)]
            results: Mapping[str, Any] = task.task.process_results(row, filtered)
        except Exception as error:  # the code of a task can raise anything
            raise InputError(
                f"task: lmms:{task.benchmark.name} cannot score the output {output[:80]!r} for "
                f"the sample {sample.id} ({type(error).__name__}: {error})"
            ) from error
    return results


def value_of(task: LocalTask, metric: str, item: Any) -> float | None:
    """A sample's value: its number, lmms-eval's `score_key`, or the aggregation of it alone."""
    if isinstance(item, Mapping):
        item = item.get(task.benchmark.config.get("score_key") or "score", item)
    if isinstance(item, bool | int | float | np.number):
        return float(item)
    return aggregated(task, metric, [item])


def aggregated(task: LocalTask, metric: str, items: Sequence[Any]) -> float | None:
    """A metric of these results by the task's own aggregation; None if it gives no number.

    Aggregations print, write reports into a folder, and some add to tables of their module: none
    of this outlives the call.
    """
    function = task.task.aggregation()[metric]
    with tempfile.TemporaryDirectory() as folder, _undone(function), _seeded(metric):
        options = {}
        if "args" in inspect.signature(function).parameters:
            options["args"] = SimpleNamespace(output_path=folder)
        try:
            with contextlib.redirect_stdout(io.StringIO()), offline():
                score = function(deepcopy(list(items)), **options)
        except Exception as error:  # the code of a task can raise anything
            raise InputError(
                f"metric: lmms:{task.benchmark.name} cannot aggregate {metric} "
                f"({type(error).__name__}: {error}); choose another one with --metric"
            ) from error
    if isinstance(score, bool | int | float | np.number) and np.isfinite(score):
        return float(score)
    return None


def _filtered(task: LocalTask, output: str) -> Any:
    """An output after the task's first filter, without the tags of reasoning that it names."""
    from lmms_eval.api.instance import Instance
    from lmms_eval.api.reasoning import parse_reasoning_tags_config, strip_reasoning_tags
    from lmms_eval.filters.transformation import StripThinkingFilter

    config = task.task.config
    tags = parse_reasoning_tags_config(task_value=config.reasoning_tags)
    ensemble = task.task._filters[0]
    instance = Instance("generate_until", ("", {}), 0, {"task": "", "doc_id": 0, "repeats": 1})
    instance.resps = [output]
    if config.auto_strip_thinking and tags is None:
        instance.resps = StripThinkingFilter().apply([instance.resps], None)[0]
    ensemble.apply([instance], None)
    filtered = instance.filtered_resps[ensemble.name]
    return strip_reasoning_tags(filtered, tags) if tags and isinstance(filtered, str) else filtered


@contextlib.contextmanager
def _seeded(seed: str) -> Iterator[None]:
    """Random numbers that depend on the seed only; those of the caller continue afterwards."""
    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(random.getrandbits(32))
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


@contextlib.contextmanager
def _undone(function: Callable[..., Any]) -> Iterator[None]:
    """The tables of a function's module are as before afterwards: OCRBench adds up its scores."""
    tables = {
        name: value
        for name, value in getattr(function, "__globals__", {}).items()
        if isinstance(value, dict | list | set) and not name.startswith("__")
    }
    before = {name: deepcopy(value) for name, value in tables.items()}
    try:
        yield
    finally:
        for name, value in tables.items():
            value.clear()
            if isinstance(value, list):
                value.extend(before[name])
            else:
                value.update(before[name])
