"""The proof that an exported model is the one that was scored: weights, outputs, bytes."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from mmq.contracts.evaluation import Evaluation
from mmq.contracts.metric import Metric
from mmq.contracts.target import ExportReport, WeightSpec
from mmq.contracts.vlm import VisionLanguageModel
from mmq.errors import InputError
from mmq.evaluation.generating import Task, evaluate
from mmq.evaluation.progress import sample_progress
from mmq.export.blind import Blind
from mmq.export.facts import file_sizes
from mmq.export.layers import ModelLayers
from mmq.export.plan import ExportPlan, promised_bytes

TOLERANCE = 0.005  # of the promised bytes
NAMED = 3  # layers and samples in an error
Simulate = Callable[[], AbstractContextManager[VisionLanguageModel]]


class UnverifiedError(InputError):
    """What was exported is not the model that was scored: it has no final name."""


@dataclass(frozen=True, slots=True)
class WeightsProof:
    """How many weights, read back by somebody else's reader, are bit for bit what they must be.

    precision: the dtype that they were rounded to before they were compared.
    """

    equal: int
    layers: int
    precision: str
    different: tuple[str, ...] = ()

    @property
    def failure(self) -> str:
        """What is wrong; "" if nothing is."""
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
    """What the engine says, beside the simulated model, and what it says to gray pictures.

    different: ids of samples with another output. exact: there must be none.
    """

    samples: int
    different: tuple[str, ...]
    exact: bool
    metric: str
    simulated: Metric
    engine: Metric
    blind: Metric

    @property
    def failure(self) -> str:
        """What is wrong; "" if nothing is."""
        if self.exact and self.different:
            ids = ", ".join(self.different[:NAMED])
            return f"{len(self.different)} of {self.samples} outputs differ (samples {ids})"
        seen = self.simulated.value > self.blind.value
        if seen and self.engine.value <= self.blind.value and self.different:
            return (
                f"the engine scores {self.engine.value:.4g} with pictures and "
                f"{self.blind.value:.4g} without: it does not see them"
            )
        return ""

    def __str__(self) -> str:
        same = self.samples - len(self.different)
        return (
            f"{same} of {self.samples} outputs equal; {self.metric}: {self.engine} in the "
            f"engine, {self.simulated} simulated, {self.blind.value:.4g} with gray "
            f"pictures"
        )


@dataclass(frozen=True, slots=True)
class BytesProof:
    """Bytes on disk beside the promise. planned: before the scales' dtypes were known."""

    disk: int
    promised: int
    planned: int

    @property
    def failure(self) -> str:
        """What is wrong; "" if nothing is."""
        if abs(self.disk - self.promised) <= TOLERANCE * self.promised:
            return ""
        return f"the files take {self.disk:,} bytes, promised were {self.promised:,}"

    def __str__(self) -> str:
        more = (
            f" ({self.planned:,} were planned: some scales need float32)"
            if self.planned != self.promised
            else ""
        )
        return f"{self.disk:,} bytes on disk, {self.promised:,} promised{more}"


@dataclass(frozen=True, slots=True)
class Proof:
    """All that was proven, and what failed."""

    weights: WeightsProof
    bytes: BytesProof
    outputs: OutputsProof | None

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per proof that failed."""
        parts = (self.weights, self.bytes, self.outputs)
        return tuple(part.failure for part in parts if part is not None and part.failure)

    def lines(self) -> list[str]:
        """One line per proof."""
        return [str(part) for part in (self.weights, self.outputs, self.bytes) if part is not None]


def prove_weights(
    plan: ExportPlan, layers: ModelLayers, folder: Path, report: ExportReport, quiet: bool = False
) -> WeightsProof:
    """Read every quantized weight back and compare it."""
    dtype = getattr(torch, report.precision)
    missing, different = plan.specs.keys() - report.unread, []
    pairs = tqdm(
        plan.target.read_back(folder), desc="read back", unit="layer", leave=False, disable=quiet
    )
    for name, weight in pairs:
        if name not in missing:
            continue
        missing.remove(name)
        expected = layers.dequantized(name, name in report.folded).to(dtype).float()
        if weight.shape != expected.shape or not torch.equal(weight.float(), expected):
            different.append(name)
    wrong = (*different, *sorted(missing))
    layers_written = len(plan.specs.keys() - report.unread)
    return WeightsProof(layers_written - len(wrong), layers_written, report.precision, wrong)


def prove_bytes(plan: ExportPlan, folder: Path, specs: Mapping[str, WeightSpec]) -> BytesProof:
    """Weigh the folder. specs: how each layer was found to be quantized."""
    source = replace(plan.source, specs=specs)
    promised = promised_bytes(plan.target, source, plan.checkpoint)
    return BytesProof(sum(file_sizes(folder).values()), promised, plan.promised_bytes)


def prove_outputs(
    plan: ExportPlan,
    folder: Path,
    device: str,
    task: Task,
    simulate: Simulate,
    quiet: bool = False,
) -> OutputsProof:
    """Ask the engine what the simulated model is asked, and both without pictures.

    task: open, with the samples to ask about. simulate: the simulated model.
    """
    progress = sample_progress("verify: ", quiet)

    def asked(model: VisionLanguageModel) -> Evaluation:
        return evaluate(task, model, progress)

    with simulate() as model:
        simulated = asked(model)
    with plan.target.open(folder, device) as model:
        engine = asked(model)
        blind = asked(Blind(model))
    return OutputsProof(
        samples=len(task.samples),
        different=_different(simulated, engine),
        exact=plan.target.exact,
        metric=simulated.primary,
        simulated=simulated.score,
        engine=engine.score,
        blind=blind.score,
    )


def _different(one: Evaluation, other: Evaluation) -> tuple[str, ...]:
    pairs = zip(one.predictions, other.predictions, strict=True)
    return tuple(a.sample_id for a, b in pairs if (a.text, a.score) != (b.text, b.score))


def first_samples(task: Task, count: int) -> Task:
    """The same task, open if it is, with at most so many samples, spread over all of them."""
    step = max(1, len(task.samples) // count)
    return replace(task, samples=task.samples[::step][:count])
