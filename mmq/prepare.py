"""From command options to everything a trial needs, checked before any model is loaded."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.allocation.parts import finest
from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.store import Store
from mmq.config import EvalOptions, TaskOptions
from mmq.contracts import options as plugin_options
from mmq.contracts import registry
from mmq.contracts.evaluator import Evaluator, GeneratingEvaluator
from mmq.contracts.family import ModelFamily, check_requests
from mmq.contracts.quantizer import Quantizer
from mmq.contracts.vlm import AnswerProtocol
from mmq.data.calibration import Calibration
from mmq.data.draw import DrawnData, draw_data
from mmq.data.source import limited
from mmq.errors import InputError
from mmq.eval_spec import EvalSpec
from mmq.evaluation.generating import Task, calibration_pairs, protocol_for
from mmq.models.checkpoint import with_checkpoint_options
from mmq.models.image_sizes import check_sizes
from mmq.models.loading import LoadedModel, fingerprint, load_model, locate, read_config
from mmq.models.skeleton import Skeleton, check_weights, skeleton
from mmq.models.stages import default_cache
from mmq.system.device import resolve_device
from mmq.system.disk import check_writable
from mmq.system.home import home
from mmq.system.versions import room_versions

log = logging.getLogger(__name__)
PACKAGES = ("torch", "transformers")  # whose version can change a score


@dataclass(slots=True)
class Prepared:
    """A checked eval_spec with its plugins and samples; the model is loaded on demand."""

    eval_spec: EvalSpec
    device: str
    skeleton: Skeleton
    quantizer: Quantizer
    task: Task
    protocol: AnswerProtocol | None  # how the model is asked; None where it ranks
    calibration: Sequence[Any]
    widths: Mapping[str, Sequence[int]]  # that will be tried, by component
    allowed: tuple[bool, bool] = (False, False)  # pickles, unread weights

    def pairs(self) -> Calibration:
        """The calibration pairs as the model reads them."""
        pairs = calibration_pairs(self.evaluator, self.calibration, self.protocol)
        return Calibration(tuple(pairs))

    @property
    def evaluator(self) -> Evaluator:
        """What scores the model."""
        return self.task.evaluator

    @property
    def samples(self) -> Sequence[Any]:
        """The samples to score."""
        return self.task.samples

    def artifacts(self, store: Store, quiet: bool = False) -> Artifacts:
        """The quantized blocks that the trials of this eval spec are assembled from."""
        calibration = self.pairs() if self.quantizer.calibrated else None
        return Artifacts(self.eval_spec, self.quantizer, store, calibration, self.widths, quiet)

    def load(self) -> LoadedModel:
        """The model, after what scores it is open; InputError if mmq's home takes no file."""
        check_writable(home())
        self.task.open()
        asked = self.eval_spec
        model = load_model(
            asked.model, asked.dtype, self.device, asked.model_fingerprint, *self.allowed
        )
        model.stage_cache = default_cache()
        return model


Allocations = Callable[[Sequence[str]], Iterable[BitAllocation]]


def prepare(
    chosen: EvalOptions,
    extra: Mapping[str, Any],
    allocations: Allocations,
    pairs: bool = False,
) -> Prepared:
    """Check everything that can be wrong, cheapest first; InputError at the first that is.

    `extra` are the plugins' own options. `allocations` tells from the model's components which
    allocations will be tried: their layers must suit the quantizer. With `pairs` there are
    calibration pairs, where the data has some to spare, for a quantizer that looks at none, too.
    """
    quantizer, evaluator = build_plugins(chosen, extra)
    named = [(chosen.quantizer, quantizer)]
    (prepared,) = prepare_quantizers(chosen, evaluator, named, allocations, pairs)
    return prepared


def prepare_quantizers(
    chosen: TaskOptions,
    evaluator: Evaluator,
    quantizers: Sequence[tuple[str, Quantizer]],
    allocations: Allocations,
    pairs: bool = False,
) -> list[Prepared]:
    """The same for several quantizers, each with its plugin's name, on the same samples.

    Where one of them needs calibration pairs that must be held out, all go without these samples.
    """
    device, dtype = check_settings(chosen)
    checkpoint = locate(chosen.model, chosen.allow_pickle)
    seen = skeleton(checkpoint)
    evaluator = with_checkpoint_options(evaluator, checkpoint, chosen.task)
    protocol = protocol_for(evaluator, seen.family)
    widths = tried_widths(seen, allocations(list(seen.components)))
    for _, quantizer in quantizers:
        check_layers(seen, quantizer, widths)
    check_weights(checkpoint, chosen.allow_unread_weights)
    data_task = evaluator.samples_of or evaluator.task
    drawn = draw_data(chosen, data_task, any(q.calibrated for _, q in quantizers), pairs)
    processor = seen.family.load_processor(checkpoint)
    check_sizes((*drawn.samples, *drawn.calibration), processor.image_processor)
    evaluator.check_samples(drawn.samples, drawn.everything)
    evaluator.check()
    task = Task(evaluator, drawn.samples, drawn.everything)
    prompt = rendered_prompt(seen.family, processor, task, protocol)
    found = fingerprint(checkpoint, read_config(checkpoint), dtype)

    return [
        Prepared(
            eval_spec=_eval_spec(
                chosen, evaluator, protocol, prompt, seen, drawn, found, dtype, name, quantizer
            ),
            device=device,
            skeleton=seen,
            quantizer=quantizer,
            task=task,
            protocol=protocol,
            calibration=drawn.calibration,
            widths=widths,
            allowed=(chosen.allow_pickle, chosen.allow_unread_weights),
        )
        for name, quantizer in quantizers
    ]


def check_settings(chosen: TaskOptions) -> tuple[str, str]:
    """Refuse nonsense before anything is read; the device and dtype that are meant."""
    for name in ("calibration_samples", "seed"):
        if getattr(chosen, name) < 0:
            raise InputError(f"{name}: {getattr(chosen, name)} is negative")
    default_cache()
    limited(chosen.limit, total=0)
    return resolve_device(chosen.device, chosen.dtype)


def _eval_spec(
    chosen: TaskOptions,
    evaluator: Evaluator,
    protocol: AnswerProtocol | None,
    prompt: str,
    seen: Skeleton,
    drawn: DrawnData,
    model_fingerprint: str,
    dtype: str,
    name: str,
    quantizer: Quantizer,
) -> EvalSpec:
    """Everything that scores depend on; name: the quantizer plugin's."""
    quantizer_id = registry.identity("quantizer", type(quantizer))
    evaluator_id = registry.identity("evaluator", type(evaluator))
    family_id = registry.identity("model family", type(seen.family))
    return EvalSpec(
        model=chosen.model,
        model_fingerprint=model_fingerprint,
        dtype=dtype,
        family=family_id.name,
        family_distribution=family_id.distribution,
        family_version=family_id.version,
        family_origin=family_id.origin,
        task=evaluator.task,
        data=chosen.data,
        data_fingerprint=drawn.fingerprint,
        samples=len(drawn.samples),
        quantizer=name,
        quantizer_distribution=quantizer_id.distribution,
        quantizer_version=quantizer_id.version,
        quantizer_origin=quantizer_id.origin,
        quantizer_options=plugin_options.values(quantizer),
        evaluator=chosen.task,
        evaluator_distribution=evaluator_id.distribution,
        evaluator_version=evaluator_id.version,
        evaluator_origin=evaluator_id.origin,
        evaluator_options=evaluator.effective_options(protocol),
        rendered_prompt=prompt,
        environment=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        versions=room_versions(),
        seed=chosen.seed,
        tokenization=seen.family.tokenization,
        calibrated=quantizer.calibrated,
        calibration=drawn.calibration_fingerprint,
        calibration_samples=len(drawn.calibration),
        limit=chosen.limit,
        allow_unread_weights=chosen.allow_unread_weights,
    )


def rendered_prompt(
    family: ModelFamily, processor: Any, task: Task, protocol: AnswerProtocol | None
) -> str:
    """The first sample's prompt as the model reads it, "" where nothing is generated.

    InputError for samples with more pictures than the family's models take.
    """
    if protocol is None or not isinstance(task.evaluator, GeneratingEvaluator):
        return ""
    requests = task.evaluator.requests(task.samples, protocol)
    check_requests(requests, family)
    first = requests[0]
    return family.chat(processor, first.prompt, len(first.images))


def build_plugins(chosen: EvalOptions, extra: Mapping[str, Any]) -> tuple[Quantizer, Evaluator]:
    """Quantizer and evaluator with their options."""
    classes = {
        "quantizer": registry.load_class("quantizer", chosen.quantizer, Quantizer),
        "evaluator": registry.load_class("evaluator", chosen.task, Evaluator),
    }
    own = [field.name for field in fields(chosen)]
    given = plugin_options.distribute(extra, classes, own)
    quantizer: Quantizer = plugin_options.build(classes["quantizer"], given["quantizer"])
    evaluator: Evaluator = plugin_options.build(classes["evaluator"], given["evaluator"])
    return quantizer, evaluator


def tried_widths(seen: Skeleton, allocations: Iterable[BitAllocation]) -> dict[str, Sequence[int]]:
    """The widths below 16 that some allocation gives each component.

    InputError for an allocation that quantizes a part without layers.
    """
    found: dict[str, set[int]] = {name: set() for name in seen.components}
    parts = {c.part(layer) for c in seen.components.values() for layer in c.layers}
    for allocation in allocations:
        for name, bits in allocation.bits:
            if bits != UNQUANTIZED and not parts & set(finest(name, seen.components)):
                raise InputError(f"allocation: {name} has no linear layer in this model")
        for part, bits in allocation.widths(seen.components).items():
            found[part[0]] |= {bits} - {UNQUANTIZED}
    return {name: sorted(widths) for name, widths in found.items()}


def check_layers(
    seen: Skeleton, quantizer: Quantizer, widths: Mapping[str, Sequence[int]]
) -> None:
    """Every layer that some allocation quantizes suits the quantizer."""
    for name, component in seen.components.items():
        for layer in component.layers if widths[name] else ():
            quantizer.check(layer.name, layer.shape)
