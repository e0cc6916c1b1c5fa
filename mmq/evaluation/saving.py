"""Scoring a model that may fail in the middle: outputs are saved as they come."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from mmq.contracts.evaluation import Evaluation
from mmq.contracts.evaluator import GeneratingEvaluator
from mmq.contracts.vlm import Progress, VisionLanguageModel
from mmq.evaluation.generating import Task, evaluate, generate_outputs
from mmq.evaluation.saved_outputs import SavedOutputs

PART = 64  # samples after which outputs are saved


def evaluate_saving(
    task: Task,
    model: VisionLanguageModel,
    progress: Progress,
    saved: SavedOutputs,
    finished: Callable[[], Mapping[str, str]] = dict,
    part: int = PART,
) -> Evaluation:
    """Scores of a model; saved outputs are not generated again.

    finished: outputs by sample id of the call that was interrupted. They are saved, too.
    """
    evaluator = cast(GeneratingEvaluator, task.evaluator)
    missing = saved.missing(task.samples)
    parts = [missing[start : start + part] for start in range(0, len(missing), part)]
    for samples in progress(parts, "ask"):
        try:
            generate_outputs(evaluator, model, samples, _silent, saved)
        except BaseException:
            _save(evaluator, samples, finished(), saved)
            raise
    return evaluate(task, model, progress, saved)


def _save(
    evaluator: GeneratingEvaluator,
    samples: Sequence[Any],
    outputs: Mapping[str, str],
    saved: SavedOutputs,
) -> None:
    there = [sample for sample in samples if sample.id in outputs]
    if there:
        saved.add(there, [evaluator.read_output(outputs[sample.id]) for sample in there])


def _silent(batches: Iterable[Any], description: str) -> Iterable[Any]:
    return batches
