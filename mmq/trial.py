"""One trial: an allocation is quantized, scored and recorded. A newcomer starts here.

    TrialSpec -> run_trial(spec, model, ...) -> TrialRecord

The grid, the search, the single-run command and the ablations all go through `run_trial`.
Quantization is simulated: codes are dequantized into the model's own linear layers, so that an
evaluator sees a plain model. Nothing here knows MLflow or Optuna.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from mmq.allocation import BitAllocation
from mmq.artifacts import Artifacts
from mmq.contracts import Evaluation, Evaluator, QuantReport
from mmq.heap import trim
from mmq.model import LoadedModel, count_parameters
from mmq.question import Question as Question
from mmq.racing import Race, Stopped
from mmq.sizes import Size, weigh


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One allocation within a question."""

    question: Question
    allocation: BitAllocation


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """All that a trial found."""

    spec: TrialSpec
    evaluation: Evaluation
    report: QuantReport
    size: Size
    seconds: Mapping[str, float]  # by stage: quantize, evaluate
    stopped: Stopped | None = None  # not None: lost its race, evaluated on a part of the samples

    def to_json(self) -> dict[str, Any]:
        """Plain data for record.json; predictions and layers go to files of their own."""
        return {
            "question": dataclasses.asdict(self.spec.question),
            "allocation": self.spec.allocation.as_dict(),
            "size": dataclasses.asdict(self.size)
            | {"gib": self.size.gib, "stored_gib": self.size.stored_gib},
            "primary": self.evaluation.primary,
            "metrics": {k: dataclasses.asdict(m) for k, m in self.evaluation.metrics.items()},
            "per_sample": {
                k: [float(x) for x in v] for k, v in self.evaluation.per_sample.items()
            },
            "errors": self.report.mean_errors(),
            "seconds": dict(self.seconds),
        } | ({"stopped": dataclasses.asdict(self.stopped)} if self.stopped else {})


def run_trial(
    spec: TrialSpec,
    model: LoadedModel,
    artifacts: Artifacts,
    evaluator: Evaluator,
    samples: Sequence[Any],
    quiet: bool = False,
    race: Race | None = None,
    check_size: Callable[[Size], None] | None = None,
) -> TrialRecord:
    """Quantize every component at its width, score the model, and leave it as it was.

    With `race` it is stopped where one of the race's trials dominates it beyond doubt. check_size:
    is given the size of what was quantized, and may raise, before anything is evaluated.
    """
    allocation = spec.allocation.over(model.components)

    def progress(batches: Iterable[Any], description: str) -> Iterator[Any]:
        """A bar that counts samples, so that it shows samples a second and the time left."""
        batches = list(batches)
        sizes = [len(batch) if isinstance(batch, Sized) else 1 for batch in batches]
        text = f"{allocation}: {description}"
        with tqdm(total=sum(sizes), desc=text, unit="sample", leave=False, disable=quiet) as bar:
            for batch, size in zip(batches, sizes, strict=True):
                yield batch
                bar.update(size)

    started = time.perf_counter()
    try:
        report = QuantReport(tuple(artifacts.write_(model, allocation)))
        size = weigh(report, count_parameters(model.module))
        if check_size is not None:
            check_size(size)
        quantized = time.perf_counter()
        if race is None:
            evaluation, stopped = evaluator.evaluate(model, samples, progress), None
        else:
            evaluation, stopped = race.evaluate(
                evaluator, model, samples, progress, allocation, size
            )
        evaluated = time.perf_counter()
    finally:
        model.restore_()
        trim()
    return TrialRecord(
        spec=TrialSpec(spec.question, allocation),
        evaluation=evaluation,
        report=report,
        size=size,
        seconds={"quantize": quantized - started, "evaluate": evaluated - quantized},
        stopped=stopped,
    )
