"""One trial: quantize an allocation, score it, record it. Start reading here.

    TrialSpec -> run_trial(spec, model, ...) -> TrialResult

The grid, the search, the single-run command and the ablations all go through `run_trial`.
Quantization is simulated: codes are dequantized into the model's own linear layers, so that an
evaluator sees a plain model. Nothing here depends on MLflow or Optuna.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mmq.artifacts.artifacts import Artifacts
from mmq.contracts import Evaluation, QuantReport
from mmq.evaluation.generating import Task, evaluate
from mmq.evaluation.progress import sample_progress
from mmq.evaluation.saved_outputs import SavedOutputs
from mmq.models.loading import LoadedModel
from mmq.models.size import Size, measure_size
from mmq.record import TrialResult, TrialSpec
from mmq.system.memory import trim

if TYPE_CHECKING:
    from mmq.studies.pruning import Pruner

log = logging.getLogger(__name__)
_reported: set[tuple[str, str]] = set()


def run_trial(
    spec: TrialSpec,
    model: LoadedModel,
    artifacts: Artifacts,
    task: Task,
    quiet: bool = False,
    pruner: "Pruner | None" = None,
    check_size: Callable[[QuantReport, Size], None] | None = None,
) -> TrialResult:
    """Quantize every component at its width, score the model, and restore it.

    pruner: stops the trial once a finished one dominates it significantly. check_size: receives
    the layers and the size of the quantized model, and may raise before anything is evaluated.
    """
    allocation = spec.allocation.over(model.components)

    progress = sample_progress(f"{allocation}: ", quiet)
    started = time.perf_counter()
    saved = SavedOutputs.of(spec.eval_spec, allocation)
    try:
        report = QuantReport(tuple(artifacts.write_(model, allocation)))
        size = measure_size(report, model.parameters)
        if check_size is not None:
            check_size(report, size)
        quantized = time.perf_counter()
        if pruner is None:
            evaluation, pruned = evaluate(task, model, progress, saved), None
        else:
            evaluation, pruned = pruner.evaluate(task, model, progress, allocation, size, saved)
        evaluated = time.perf_counter()
        observations = dict(model.observations)
        saved.remove()
    finally:
        model.restore_()
        trim()
    _report_doubts(evaluation, spec.eval_spec.key)
    return TrialResult.of(
        TrialSpec(spec.eval_spec, allocation),
        evaluation,
        report,
        size,
        seconds={"quantize": quantized - started, "evaluate": evaluated - quantized},
        pruned=pruned,
        observations=observations,
    )


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
