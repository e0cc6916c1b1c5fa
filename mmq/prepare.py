"""From command options to everything a trial needs, checked before any model is loaded."""

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmq import options as plugin_options
from mmq import registry
from mmq.allocation import UNTOUCHED, BitAllocation
from mmq.contracts import Dataset, Evaluator, Quantizer
from mmq.errors import InputError
from mmq.images import check_images
from mmq.model import DTYPES, LoadedModel, Skeleton, load_model, locate, skeleton
from mmq.store import digest
from mmq.trial import Question

log = logging.getLogger(__name__)


def option(default: Any, help: str) -> Any:
    """A field that becomes a command option with this help text."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """What to quantize, on which task, with which quantizer: shared by all commands."""

    model: str = option("embedded-blip2", "Bundled model, local folder or hub name.")
    task: str = option("vqa", "Evaluator to score with; see `mmq plugins`.")
    data: str = option("scenes", "Bundled data set, or a folder in an official layout.")
    dataset: str = option("", "Data set plugin that reads the folder; found by itself if empty.")
    quantizer: str = option(
        "rtn", "Quantizer plugin; its options follow as --group-size and so on."
    )
    limit: int = option(0, "Score a seeded random part of this many samples; 0 scores all.")
    seed: int = option(0, "Seed of everything random.")
    dtype: str = option("auto", "float32, float16 or bfloat16; auto: float16 on a GPU.")
    device: str = option("auto", "cpu, cuda, cuda:1 and so on; auto: a GPU if there is one.")


@dataclass(slots=True)
class Prepared:
    """A checked question with its plugins and samples; the model is loaded on demand."""

    question_options: QuestionOptions
    device: str
    dtype: str
    skeleton: Skeleton
    quantizer: Quantizer
    evaluator: Evaluator
    samples: Sequence[Any]
    all_samples: Sequence[Any]
    data_fingerprint: str

    def load(self) -> tuple[LoadedModel, Question]:
        """The model, and the question that its trials answer."""
        chosen = self.question_options
        model = load_model(chosen.model, self.dtype, self.device)
        self.evaluator.prepare(self.all_samples)
        question = Question(
            model=chosen.model,
            model_fingerprint=model.fingerprint,
            dtype=self.dtype,
            task=self.evaluator.task,
            data=chosen.data,
            data_fingerprint=self.data_fingerprint,
            samples=len(self.samples),
            quantizer=chosen.quantizer,
            quantizer_version=self.quantizer.version,
            quantizer_options=plugin_options.values(self.quantizer),
            evaluator=chosen.task,
            evaluator_version=self.evaluator.version,
            evaluator_options=plugin_options.values(self.evaluator),
            seed=chosen.seed,
        )
        return model, question


def prepare(
    chosen: QuestionOptions,
    extra: Mapping[str, str],
    allocations: Callable[[Sequence[str]], Iterable[BitAllocation]],
) -> Prepared:
    """Check everything that can be wrong, cheapest first; InputError at the first that is.

    `extra` are the plugins' own options. `allocations` tells from the model's components which
    allocations will be tried: their layers must suit the quantizer.
    """
    quantizer_class = registry.load("quantizer", chosen.quantizer)
    evaluator_class = registry.load("evaluator", chosen.task)
    given = plugin_options.distribute(
        extra, {"quantizer": quantizer_class, "evaluator": evaluator_class}
    )
    quantizer: Quantizer = plugin_options.build(quantizer_class, given["quantizer"])
    evaluator: Evaluator = plugin_options.build(evaluator_class, given["evaluator"])
    device, dtype = resolve_device(chosen.device, chosen.dtype)
    if chosen.limit < 0:
        raise InputError(f"limit: {chosen.limit} is negative; 0 scores all samples")
    seen = skeleton(locate(chosen.model))
    evaluator.check(seen.family)
    check_layers(seen, quantizer, allocations(list(seen.components)))
    everything = find_samples(chosen, evaluator)
    samples = subset(everything, chosen.limit, chosen.seed)
    check_images(sample.image for sample in samples)
    return Prepared(
        question_options=chosen,
        device=device,
        dtype=dtype,
        skeleton=seen,
        quantizer=quantizer,
        evaluator=evaluator,
        samples=samples,
        all_samples=everything,
        data_fingerprint=fingerprint_samples(samples),
    )


def resolve_device(device: str, dtype: str) -> tuple[str, str]:
    """The device and dtype that auto stands for here; InputError for one that is not there."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise InputError(f"device: {device!r} is none; write cpu, cuda or cuda:1") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device: {device!r} was given, but torch sees no GPU; use cpu")
    if dtype == "auto":
        dtype = "float32" if kind == "cpu" else "float16"
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r} is not one of {['auto', *DTYPES]}")
    return device, dtype


def check_layers(
    seen: Skeleton, quantizer: Quantizer, allocations: Iterable[BitAllocation]
) -> None:
    """Every layer that some allocation quantizes suits the quantizer."""
    touched = {
        name
        for allocation in allocations
        for name, bits in allocation.over(seen.components).bits
        if bits != UNTOUCHED
    }
    for name in touched:
        for layer in seen.components[name].layers:
            quantizer.check(layer.name, layer.shape)


def find_samples(chosen: QuestionOptions, evaluator: Evaluator) -> list[Any]:
    """The evaluation set that --data and --dataset name."""
    readers: dict[str, Dataset] = {
        plugin.name: registry.load("dataset", plugin.name)()
        for plugin in registry.installed("dataset")
    }
    fitting = {name: r for name, r in readers.items() if evaluator.task in r.tasks}
    if not fitting:
        raise InputError(f"No installed data set serves the task {evaluator.task!r}.")
    if chosen.data in fitting and fitting[chosen.data].bundled:
        return fitting[chosen.data].samples(evaluator.task, Path())
    root = Path(chosen.data)
    layouts = "\n\n".join(
        f"{name}:\n{reader.layout}" for name, reader in fitting.items() if not reader.bundled
    )
    if not root.is_dir():
        bundled = ", ".join(name for name, reader in fitting.items() if reader.bundled)
        raise InputError(
            f"data: there is no folder {chosen.data!r}, and no bundled data set of that name for "
            f"the task {evaluator.task} (bundled: {bundled}). Expected layouts:\n\n{layouts}"
        )
    if chosen.dataset:
        registry.load("dataset", chosen.dataset)  # an unknown name gets the registry's error
        if chosen.dataset not in fitting:
            raise InputError(
                f"dataset: {chosen.dataset!r} does not serve the task {evaluator.task!r}; "
                f"these do: {', '.join(sorted(fitting))}"
            )
        return fitting[chosen.dataset].samples(evaluator.task, root)
    for reader in fitting.values():
        if reader.recognizes(root):
            return reader.samples(evaluator.task, root)
    raise InputError(
        f"data: {chosen.data!r} holds no data set for the task {evaluator.task!r}. "
        f"Expected layouts:\n\n{layouts}"
    )


def subset(samples: Sequence[Any], limit: int, seed: int) -> Sequence[Any]:
    """A seeded random part in the original order; all samples where limit is 0 or too large."""
    if not limit or limit >= len(samples):
        return samples
    chosen = sorted(random.Random(seed).sample(range(len(samples)), limit))
    return [samples[k] for k in chosen]


def fingerprint_samples(samples: Sequence[Any]) -> str:
    """A hash of ids, texts and pictures (by name and size in bytes)."""
    return digest(
        [
            asdict(sample) | {"image": (sample.image.name, sample.image.stat().st_size)}
            for sample in samples
        ]
    )
