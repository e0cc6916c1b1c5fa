"""One trial: an allocation is quantized, scored and recorded. A newcomer starts here.

    TrialSpec -> run_trial(spec, model, ...) -> TrialRecord

The grid, the search, the single-run command and the ablations all go through `run_trial`.
Quantization is simulated: codes are dequantized into the model's own linear layers, so that an
evaluator sees a plain model. Nothing here knows MLflow or Optuna.
"""

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mmq.allocation import UNTOUCHED, BitAllocation
from mmq.contracts import Evaluation, Evaluator, LayerReport, Quantizer, QuantReport
from mmq.model import Component, Layer, LoadedModel, count_parameters
from mmq.sizes import Size, weigh
from mmq.store import ArtifactKey, Store, digest


@dataclass(frozen=True, slots=True)
class Question:
    """What a study asks: model, task, data and quantizer. Its trials differ in the allocation."""

    model: str
    model_fingerprint: str
    dtype: str
    task: str
    data: str
    data_fingerprint: str
    samples: int
    quantizer: str
    quantizer_origin: str  # distribution, versions and a hash of the code
    quantizer_options: Mapping[str, Any]
    evaluator: str
    evaluator_origin: str
    evaluator_options: Mapping[str, Any]
    environment: str  # packages whose version can change a score
    seed: int
    calibrated: bool = False  # whether the quantizer looks at the calibration pairs
    calibration: str = ""  # their fingerprint; "" where there are none
    calibration_samples: int = 0

    def facts(self) -> dict[str, Any]:
        """All that the scores depend on; the model's and data's names do not count.

        Nor do calibration pairs that nothing looks at.
        """
        left_out = {"model", "data", "calibrated"}
        if not self.calibrated:
            left_out |= {"calibration", "calibration_samples"}
        everything = dataclasses.asdict(self)
        return {k: v for k, v in everything.items() if k not in left_out}

    @property
    def key(self) -> str:
        """A hash of the facts."""
        return digest(self.facts())


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
            "seconds": dict(self.seconds),
        }


def run_trial(
    spec: TrialSpec,
    model: LoadedModel,
    quantizer: Quantizer,
    evaluator: Evaluator,
    samples: Sequence[Any],
    store: Store,
    quiet: bool = False,
) -> TrialRecord:
    """Quantize every component at its width, score the model, and leave it as it was."""
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
    layers: list[LayerReport] = []
    try:
        for name, component in model.components.items():
            bits = allocation[name]
            if bits == UNTOUCHED:
                layers += [_untouched(name, layer) for layer in component.layers]
                continue
            layers += _quantize_(spec.question, model, component, bits, quantizer, store)
        quantized = time.perf_counter()
        evaluation = evaluator.evaluate(model, samples, progress)
        evaluated = time.perf_counter()
    finally:
        model.restore_()
    report = QuantReport(tuple(layers))
    return TrialRecord(
        spec=TrialSpec(spec.question, allocation),
        evaluation=evaluation,
        report=report,
        size=weigh(report, count_parameters(model.module)),
        seconds={"quantize": quantized - started, "evaluate": evaluated - quantized},
    )


def _quantize_(
    question: Question,
    model: LoadedModel,
    component: Component,
    bits: int,
    quantizer: Quantizer,
    store: Store,
) -> list[LayerReport]:
    """Write a component's quantized weights into the model, one block at a time.

    A block at a time, so that a large component never stands in memory twice.
    """
    reports: list[LayerReport] = []
    keys = []
    for block, layers in groupby(component.layers, key=lambda layer: layer.block):
        key = ArtifactKey(
            model=model.fingerprint,
            component=component.name,
            quantizer=question.quantizer,
            quantizer_origin=question.quantizer_origin,
            options=tuple(sorted(question.quantizer_options.items())),
            bits=bits,
            block=block,
        )
        keys.append(key.name)
        reports += _quantize_block_(key, model, list(layers), quantizer, store)
    model.states[component.name] = digest(keys)
    return reports


def _quantize_block_(
    key: ArtifactKey,
    model: LoadedModel,
    layers: Sequence[Layer],
    quantizer: Quantizer,
    store: Store,
) -> list[LayerReport]:
    """Write a block's weights into the model, from the store or quantized now and stored."""
    weights = store.get(key)
    if weights is None:
        weights = {
            layer.name: quantizer.quantize(model.original(layer), key.bits) for layer in layers
        }
        store.put(key, weights)
    reports = []
    for layer in layers:
        quantized = weights[layer.name]
        plain = quantized.dequantize()
        error = relative_error(model.original(layer), plain)
        model.write_(key.component, {layer.name: plain})
        reports.append(
            dataclasses.replace(
                _untouched(key.component, layer),
                bits=key.bits,
                group_size=quantized.group_size,
                stored_bits=quantized.stored_bits,
                relative_error=error,
                skipped=None,
            )
        )
    return reports


def relative_error(weight: Tensor, approximation: Tensor) -> float:
    """|W - Q(W)|_F / |W|_F, a part of the rows at a time: in float32 a large layer is large."""
    lost = whole = 0.0
    parts = zip(torch.split(weight, 1024), torch.split(approximation, 1024), strict=True)
    for rows, near in parts:
        given = rows.float()
        whole += float(given.square().sum(dtype=torch.float64))
        lost += float((given - near.to(given.device)).square().sum(dtype=torch.float64))
    return math.sqrt(lost / max(whole, 1e-24))


def _untouched(component: str, layer: Layer) -> LayerReport:
    return LayerReport(
        name=layer.name,
        component=component,
        block=layer.block,
        layer_type=layer.layer_type,
        shape=layer.shape,
        bits=UNTOUCHED,
        skipped="its component stays at 16 bits",
    )
