"""One trial: quantize an allocation, score it, record it. Start reading here.

    TrialSpec -> run_trial(spec, model, ...) -> TrialResult

The grid, the search, the single-run command and the ablations all go through `run_trial`.
Quantization is simulated: codes are dequantized into the model's own linear layers, so that an
evaluator sees a plain model. Nothing here depends on MLflow or Optuna.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmq.allocation.allocation import BitAllocation, is_unquantized
from mmq.artifacts.artifacts import Artifacts
from mmq.contracts import Evaluation, QuantReport
from mmq.evaluation.flips import UnquantizedAnswers, answers_of, with_flips
from mmq.evaluation.generating import Task, evaluate
from mmq.evaluation.progress import sample_progress
from mmq.evaluation.saved_outputs import SavedOutputs
from mmq.models.loading import LoadedModel
from mmq.models.size import Size, measure_size
from mmq.record import TrialResult, TrialSpec
from mmq.system.memory import trim

if TYPE_CHECKING:
    from mmq.studies.pruning import TaskPruner

log = logging.getLogger(__name__)
_reported: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class Quantized:
    """A model with an allocation's weights in it: the layers' report, the size, the seconds."""

    report: QuantReport
    size: Size
    seconds: float


@contextmanager
def quantized(
    model: LoadedModel,
    artifacts: Artifacts,
    allocation: BitAllocation,
    check_size: Callable[[QuantReport, Size], None] | None = None,
) -> Iterator[Quantized]:
    """Write an allocation's weights into a model, and restore it at the end.

    check_size: receives the layers and the size of the quantized model, and may raise.
    """
    started = time.perf_counter()
    try:
        report = QuantReport(tuple(artifacts.write_(model, allocation)))
        size = measure_size(report, model.parameters)
        if check_size is not None:
            check_size(report, size)
        yield Quantized(report, size, time.perf_counter() - started)
    finally:
        model.restore_()
        trim()


def run_trial(
    spec: TrialSpec,
    model: LoadedModel,
    artifacts: Artifacts,
    task: Task,
    quiet: bool = False,
    pruner: "TaskPruner | None" = None,
    check_size: Callable[[QuantReport, Size], None] | None = None,
) -> TrialResult:
    """Quantize every component at its width, score the model, and restore it.

    pruner: stops the trial once a finished one dominates it significantly. check_size: receives
    the layers and the size of the quantized model, and may raise before anything is evaluated.
    """
    allocation = spec.allocation.over(model.components)
    spec = TrialSpec(spec.eval_spec, allocation)
    with quantized(model, artifacts, allocation, check_size) as weights:
        return evaluate_quantized(spec, model, weights, task, quiet, pruner)


def evaluate_quantized(
    spec: TrialSpec,
    model: LoadedModel,
    weights: Quantized,
    task: Task,
    quiet: bool = False,
    pruner: "TaskPruner | None" = None,
) -> TrialResult:
    """Score a model that has the allocation's weights. pruner: see `run_trial`."""
    progress = sample_progress(f"{spec.allocation}: ", quiet)
    saved = SavedOutputs.of(spec.eval_spec, spec.allocation)
    started, before = time.perf_counter(), dict(model.observations)
    if pruner is None:
        evaluation, pruned = evaluate(task, model, progress, saved), None
    else:
        evaluation, pruned = pruner.evaluate(
            task, model, progress, spec.allocation, weights.size, saved
        )
    evaluated = time.perf_counter()
    observations = {name: n - before.get(name, 0) for name, n in model.observations.items()}
    saved.remove()
    evaluation = _compared(evaluation, spec, task, pruned is None)
    _report_doubts(evaluation, spec.eval_spec.key)
    return TrialResult.of(
        spec,
        evaluation,
        weights.report,
        weights.size,
        seconds={"quantize": weights.seconds, "evaluate": evaluated - started},
        pruned=pruned,
        observations=observations,
    )


def _compared(evaluation: Evaluation, spec: TrialSpec, task: Task, complete: bool) -> Evaluation:
    """With flips against the unquantized model, whose own answers are saved for that."""
    reference = UnquantizedAnswers(spec.eval_spec)
    if is_unquantized(spec.allocation):
        if complete:
            reference.put(answers_of(evaluation.predictions))
        return evaluation
    answers = reference.get()
    return evaluation if answers is None else with_flips(evaluation, answers, task.samples)


def _report_doubts(evaluation: Evaluation, eval_spec: str) -> None:
    """Warn once per eval spec about undefined metrics and correct answers that score 0."""
    for name, why in evaluation.undefined.items():
        if _is_new(eval_spec, name):
            log.warning("%s is undefined: %s", name, why)
    right = evaluation.right_but_worthless()
    if right and _is_new(eval_spec, "right answers"):
        example = right[0]
        log.warning(
            "%d of %d predictions equal the expected answer and score 0, e.g. %r on sample %s: "
            "check the answers in the data and the evaluator's rule before a search",
            len(right), len(evaluation.predictions), example.text, example.sample_id,
        )  # fmt: skip


def _is_new(eval_spec: str, subject: str) -> bool:
    """Whether this was not yet reported: all trials of an eval spec share their warnings."""
    reported = (eval_spec, subject) in _reported
    _reported.add((eval_spec, subject))
    return not reported
