"""Proof that the exported model is the one that was scored: weights, outputs, bytes."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mmq.contracts.evaluation import Evaluation
from mmq.contracts.evaluator import GeneratingEvaluator
from mmq.contracts.metric import Metric
from mmq.contracts.target import ExportReport
from mmq.contracts.vlm import VisionLanguageModel
from mmq.errors import InputError
from mmq.evaluation.generating import Task, evaluate
from mmq.evaluation.progress import sample_progress
from mmq.export.blind import Blind
from mmq.export.facts import file_sizes
from mmq.export.layers import ModelLayers
from mmq.export.measure import Measurement, measure_opened
from mmq.export.plan import ExportPlan
from mmq.system.progress import progress_bar

TOLERANCE = 0.005  # share of the planned bytes
NAMED = 3  # layers and samples in an error
ROWS = 512  # compared at once
Simulate = Callable[[], AbstractContextManager[VisionLanguageModel]]


class UnverifiedError(InputError):
    """A proof failed: the exported model may not be the one that was scored."""


@dataclass(frozen=True, slots=True)
class WeightsProof:
    """Weights read back by an independent reader that equal the quantized model's, bit for bit.

    precision: the dtype that both were rounded to. different: names of the other layers.
    """

    equal: int
    layers: int
    precision: str
    different: tuple[str, ...] = ()

    @property
    def failure(self) -> str:
        """Why the proof failed; "" if it did not."""
        if not self.different:
            return ""
        names = ", ".join(self.different[:NAMED])
        return (
            f"{len(self.different)} of {self.layers} weights differ from the quantized model's or "
            f"are missing ({names})"
        )

    def __str__(self) -> str:
        rounded = "" if self.precision == "float32" else f", both rounded to {self.precision}"
        return f"{self.equal} of {self.layers} weights read back bit for bit{rounded}"


@dataclass(frozen=True, slots=True)
class OutputsProof:
    """Scores of the engine, of the simulated model, and of the engine with gray pictures.

    different: ids of samples with another output. exact: outputs must be equal. cost: of answers
    in the engine that was open; None for a model that generates no text. task: its label, if the
    model was scored on several.
    """

    samples: int
    different: tuple[str, ...]
    exact: bool
    metric: str
    simulated: Metric
    engine: Metric
    blind: Metric
    cost: Measurement | None = None
    task: str = ""

    @property
    def failure(self) -> str:
        """Why the proof failed; "" if it did not."""
        if self.exact and self.different:
            ids = ", ".join(self.different[:NAMED])
            return (
                f"{self._of_task}{len(self.different)} of {self.samples} outputs differ (samples "
                f"{ids})"
            )
        pictures_help = self.simulated.value > self.blind.value
        if pictures_help and self.engine.value <= self.blind.value and self.different:
            return (
                f"{self._of_task}the engine scores {self.engine.value:.4g} with pictures and "
                f"{self.blind.value:.4g} without: it does not use them"
            )
        return ""

    @property
    def _of_task(self) -> str:
        return f"{self.task}: " if self.task else ""

    def __str__(self) -> str:
        same = self.samples - len(self.different)
        return (
            f"{self._of_task}{same} of {self.samples} outputs equal; {self.metric}: "
            f"{self.engine} in the engine, {self.simulated} simulated, {self.blind.value:.4g} "
            f"with gray pictures"
        )


@dataclass(frozen=True, slots=True)
class BytesProof:
    """Bytes on disk, and as promised before a byte was written."""

    disk: int
    promised: int

    @property
    def failure(self) -> str:
        """Why the proof failed; "" if it did not."""
        if abs(self.disk - self.promised) <= TOLERANCE * self.promised:
            return ""
        return f"the files take {self.disk:,} bytes instead of the planned {self.promised:,}"

    def __str__(self) -> str:
        return f"{self.disk:,} bytes on disk, {self.promised:,} planned"


@dataclass(frozen=True, slots=True)
class Proof:
    """The three proofs.

    outputs: of the task, or the first of several, whose others are `further`. not_compared: why
    there are none.
    """

    weights: WeightsProof
    bytes: BytesProof
    outputs: OutputsProof | None
    not_compared: str = ""
    further: tuple[OutputsProof, ...] = ()

    @property
    def compared(self) -> tuple[OutputsProof, ...]:
        """The outputs of every task; empty if they were not compared."""
        return () if self.outputs is None else (self.outputs, *self.further)

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per proof that failed."""
        parts: tuple[WeightsProof | BytesProof | OutputsProof, ...]
        parts = (self.weights, self.bytes, *self.compared)
        return tuple(part.failure for part in parts if part.failure)

    def lines(self) -> list[str]:
        """One line per proof."""
        outputs = self.compared or (f"outputs are not compared: {self.not_compared}",)
        return [str(self.weights), *map(str, outputs), str(self.bytes)]

    @property
    def cost(self) -> Measurement | None:
        """The cost of answers in the engine, if it generated any."""
        return None if self.outputs is None else self.outputs.cost


def prove_weights(
    plan: ExportPlan, layers: ModelLayers, folder: Path, report: ExportReport, quiet: bool = False
) -> WeightsProof:
    """Read back and compare every quantized weight."""
    dtype = getattr(torch, report.precision)
    missing, different = plan.specs.keys() - report.unread, []
    with progress_bar(
        total=len(missing), desc="read back", unit="layer", leave=False, quiet=quiet
    ) as bar:
        for name, weight in plan.target.read_back(folder):
            if name in missing:
                missing.remove(name)
                expected = layers.dequantized(name, name in report.folded)
                if not _equal(weight, expected, dtype):
                    different.append(name)
                del expected
                bar.update()
            del weight  # before the next one is read
    wrong = (*different, *sorted(missing))
    layers_written = len(plan.specs.keys() - report.unread)
    return WeightsProof(layers_written - len(wrong), layers_written, report.precision, wrong)


def _equal(weight: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether a weight is the expected one, rounded to a dtype; some rows are copied at a time."""
    if weight.shape != expected.shape:
        return False
    parts = zip(*(torch.split(w, ROWS) for w in (weight, expected)), strict=True)
    return all(torch.equal(rows.float(), own.to(dtype).float()) for rows, own in parts)


def prove_bytes(plan: ExportPlan, folder: Path) -> BytesProof:
    """Compare the folder's size with the promise."""
    return BytesProof(sum(file_sizes(folder).values()), plan.promised_bytes)


def prove_outputs(
    plan: ExportPlan,
    folder: Path,
    device: str,
    tasks: Mapping[str, Task],
    simulate: Simulate,
    quiet: bool = False,
) -> tuple[OutputsProof, ...]:
    """Score the engine, the simulated model, and the engine with gray pictures, on each task.

    tasks: open, with the samples to ask about, by label. simulate: opens the simulated model.
    """
    progress = sample_progress("verify: ", quiet)

    def score(model: VisionLanguageModel) -> dict[str, Evaluation]:
        return {label: evaluate(task, model, progress) for label, task in tasks.items()}

    with simulate() as model:
        simulated = score(model)
    started = time.perf_counter()
    with plan.target.open(folder, device) as model:
        load = time.perf_counter() - started
        engine = score(model)
        blind = score(Blind(model))
        first = next(iter(tasks.values()))
        generates = isinstance(first.evaluator, GeneratingEvaluator)
        cost = measure_opened(model, folder, device, load) if generates else None
    return tuple(
        OutputsProof(
            samples=len(task.samples),
            different=_different(simulated[label], engine[label]),
            exact=plan.target.exact,
            metric=simulated[label].primary,
            simulated=simulated[label].score,
            engine=engine[label].score,
            blind=blind[label].score,
            cost=cost if task is first else None,
            task=label,
        )
        for label, task in tasks.items()
    )


def _different(one: Evaluation, other: Evaluation) -> tuple[str, ...]:
    pairs = zip(one.predictions, other.predictions, strict=True)
    return tuple(a.sample_id for a, b in pairs if (a.text, a.score) != (b.text, b.score))


def first_samples(task: Task, count: int) -> Task:
    """The task with at most `count` samples, spread evenly over all of them."""
    step = max(1, len(task.samples) // count)
    return replace(task, samples=task.samples[::step][:count])
