"""Turn command options into everything a trial needs, checked before loading any model."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import version
from typing import Any

from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.remote import RemoteStore
from mmq.artifacts.store import Store
from mmq.config import EvalOptions, TaskOptions
from mmq.contracts import options as option_fields
from mmq.contracts import registry
from mmq.contracts.evaluator import Evaluator, GeneratingEvaluator
from mmq.contracts.family import ModelFamily, check_requests
from mmq.contracts.quantizer import Quantizer
from mmq.contracts.vlm import AnswerProtocol, InputOptions
from mmq.data.calibration import Calibration, check_texts
from mmq.data.draw import DrawnData, draw_data
from mmq.eval_spec import EvalSpec
from mmq.evaluation.generating import Task, calibration_pairs, protocol_for
from mmq.model_setup import Allocations, ModelSetup
from mmq.models.chat_template import template_date
from mmq.models.checkpoint import with_checkpoint_options
from mmq.models.generation_settings import generation_settings
from mmq.models.image_sizes import check_sizes
from mmq.models.loading import (
    LoadedModel,
    load_model,
)
from mmq.models.skeleton import Skeleton
from mmq.models.stages import default_cache
from mmq.quantization import by_width
from mmq.system.disk import check_writable
from mmq.system.home import home
from mmq.system.versions import room_versions
from mmq.task_names import single_task

log = logging.getLogger(__name__)
PACKAGES = ("torch", "transformers")  # whose version can change a score


@dataclass(slots=True)
class Prepared:
    """A checked eval spec with its plugins and samples; the model is loaded on demand."""

    eval_spec: EvalSpec
    device: str
    skeleton: Skeleton
    quantizer: Quantizer
    task: Task
    protocol: AnswerProtocol | None  # None if the evaluator ranks
    calibration: Sequence[Any]
    widths: Mapping[str, Sequence[int]]  # widths to try, by component
    processor: Any
    inputs: InputOptions
    allowed: tuple[bool, bool] = (False, False)  # pickles, unread weights
    parts: tuple[str, ...] = ()  # optional ones, such as embed

    def pairs(self) -> Calibration:
        """The calibration pairs of requests and answers."""
        pairs = calibration_pairs(self.evaluator, self.calibration, self.protocol)
        return Calibration(tuple(pairs), self.inputs)

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator that scores the model."""
        return self.task.evaluator

    @property
    def samples(self) -> Sequence[Any]:
        """The samples to score."""
        return self.task.samples

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest possible score, if known."""
        return self.evaluator.bounds

    @property
    def clusters(self) -> list[str]:
        """The picture of every sample."""
        return [sample.image_id for sample in self.samples]

    @property
    def scored_tasks(self) -> Mapping[str, Task]:
        """The task, without a label; several of one model have labels."""
        return {"": self.task}

    def open(self) -> None:
        """Start the scorer."""
        self.task.open()

    def close(self) -> None:
        """Stop the scorer."""
        self.task.close()

    def artifacts(self, store: Store, quiet: bool = False) -> Artifacts:
        """The quantized blocks that the trials of this eval spec are assembled from."""
        calibration = self.pairs() if self.quantizer.calibrated else None
        return Artifacts(self.eval_spec, self.quantizer, store, calibration, self.widths, quiet)

    def load(self) -> LoadedModel:
        """Open the scorer, then load the model; InputError if mmq's home is not writable."""
        check_writable(home())
        if (remote := RemoteStore.configured()) is not None:
            remote.check()
        self.open()
        spec = self.eval_spec
        model = load_model(
            spec.model, spec.dtype, self.device, spec.model_fingerprint, *self.allowed,
            self.processor, self.inputs, self.parts,
        )  # fmt: skip
        model.stage_cache = default_cache()
        return model


def prepare(
    options: EvalOptions,
    plugin_options: Mapping[str, Any],
    allocations: Allocations,
    pairs: bool = False,
) -> Prepared:
    """Check all input, cheapest checks first; InputError for the first problem.

    plugin_options: of quantizer and evaluator. allocations: a function from the model's components
    to the allocations to try; the quantizer must support their layers. pairs: provide calibration
    pairs, if the data has enough, even for a quantizer that uses none.
    """
    quantizer, evaluator = build_plugins(options, plugin_options)
    named = [(options.quantizer, quantizer)]
    (prepared,) = prepare_quantizers(options, evaluator, named, allocations, pairs)
    return prepared


def prepare_quantizers(
    options: TaskOptions,
    evaluator: Evaluator,
    quantizers: Sequence[tuple[str, Quantizer]],
    allocations: Allocations,
    pairs: bool = False,
) -> list[Prepared]:
    """Prepare several quantizers, each with its plugin's name, on the same samples.

    If one of them needs held-out calibration pairs, none is scored on these samples.
    """
    model = ModelSetup.of(options, quantizers, allocations)
    prepared = prepare_task(model, options, evaluator, quantizers, pairs)
    for each in prepared:
        if each.quantizer.calibrated:
            check_texts(each.calibration, each.skeleton.family, each.widths)
    return prepared


def prepare_task(
    model: ModelSetup,
    options: TaskOptions,
    evaluator: Evaluator,
    quantizers: Sequence[tuple[str, Quantizer]],
    pairs: bool = False,
) -> list[Prepared]:
    """The eval spec of each quantizer on one task; see `prepare_quantizers`."""
    outline, inputs = model.outline, model.inputs
    evaluator = with_checkpoint_options(evaluator, model.checkpoint, options.task)
    protocol = protocol_for(evaluator, outline.family)
    data_task = evaluator.samples_of or evaluator.task
    data = draw_data(options, data_task, any(q.calibrated for _, q in quantizers), pairs)
    processor = model.processor
    check_sizes((*data.samples, *data.calibration), processor.image_processor)
    evaluator.check_samples(data.samples, data.everything)
    evaluator.check()
    task = Task(evaluator, data.samples, data.everything)
    prompt = rendered_prompt(outline.family, processor, task, protocol, inputs)
    spec_of = partial(
        _eval_spec,
        options,
        evaluator,
        protocol,
        prompt,
        outline,
        data,
        model.fingerprint,
        model.dtype,
        tokenization_of(outline.family, processor, inputs),
        generation_settings(model.checkpoint, outline.family),
    )
    return [
        Prepared(
            eval_spec=spec_of(name, quantizer),
            device=model.device,
            skeleton=outline,
            quantizer=quantizer,
            task=task,
            protocol=protocol,
            calibration=data.calibration,
            widths=model.widths,
            processor=processor,
            inputs=inputs,
            allowed=(options.allow_pickle, options.allow_unread_weights),
            parts=model.parts,
        )
        for name, quantizer in quantizers
    ]


def tokenization_of(family: ModelFamily, processor: Any, inputs: InputOptions) -> dict[str, Any]:
    """Settings of a model's inputs that depend on the user, the family or the date."""
    tokenization = {**family.tokenization, **inputs.changes()}
    if family.one_by_one:
        tokenization["batches"] = "one sample each"
    if today := template_date(processor, inputs):
        tokenization["template_date"] = today
    return tokenization


def _eval_spec(
    options: TaskOptions,
    evaluator: Evaluator,
    protocol: AnswerProtocol | None,
    prompt: str,
    outline: Skeleton,
    data: DrawnData,
    model_fingerprint: str,
    dtype: str,
    tokenization: Mapping[str, Any],
    generation: Mapping[str, Any],
    name: str,
    quantizer: Quantizer,
) -> EvalSpec:
    """Everything that scores depend on. name: of the quantizer plugin."""
    quantizer_id = registry.identity("quantizer", type(by_width.common(quantizer)))
    evaluator_id = registry.identity("evaluator", type(evaluator))
    family_id = registry.identity("model family", type(outline.family))
    return EvalSpec(
        model=options.model,
        model_fingerprint=model_fingerprint,
        dtype=dtype,
        family=family_id.name,
        family_distribution=family_id.distribution,
        family_version=family_id.version,
        family_origin=family_id.origin,
        task=evaluator.task,
        data=options.data,
        data_fingerprint=data.fingerprint,
        samples=len(data.samples),
        quantizer=name,
        quantizer_distribution=quantizer_id.distribution,
        quantizer_version=quantizer_id.version,
        quantizer_origin=quantizer_id.origin,
        quantizer_options=by_width.option_values(quantizer),
        evaluator=options.task,
        evaluator_distribution=evaluator_id.distribution,
        evaluator_version=evaluator_id.version,
        evaluator_origin=evaluator_id.origin,
        evaluator_options=evaluator.effective_options(protocol),
        rendered_prompt=prompt,
        environment=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        versions=room_versions(),
        seed=options.seed,
        tokenization=tokenization,
        generation_config=generation,
        calibrated=quantizer.calibrated,
        calibration=data.calibration_fingerprint,
        calibration_samples=len(data.calibration),
        limit=options.limit,
        allow_unread_weights=options.allow_unread_weights,
        dataset=options.dataset,
        fields=options.fields,
        calibration_data=options.calibration_data,
    )


def rendered_prompt(
    family: ModelFamily,
    processor: Any,
    task: Task,
    protocol: AnswerProtocol | None,
    inputs: InputOptions,
) -> str:
    """The first sample's prompt as the model reads it, "" if nothing is generated.

    InputError for samples with more pictures than the family supports.
    """
    if protocol is None or not isinstance(task.evaluator, GeneratingEvaluator):
        return ""
    requests = task.evaluator.requests(task.samples, protocol)
    check_requests(requests, family)
    first = requests[0]
    return family.chat(processor, first.prompt, len(first.images), inputs)


def build_plugins(
    options: EvalOptions, plugin_options: Mapping[str, Any]
) -> tuple[Quantizer, Evaluator]:
    """Build the quantizer and the evaluator with their options."""
    classes, values = given_options(options, plugin_options)
    quantizer = by_width.build(classes["quantizer"], values["quantizer"])
    evaluator: Evaluator = option_fields.build(classes["evaluator"], values["evaluator"])
    return quantizer, evaluator


def given_options(
    options: EvalOptions, plugin_options: Mapping[str, Any]
) -> tuple[dict[str, type], dict[str, dict[str, Any]]]:
    """The plugin classes of "quantizer" and "evaluator", and the options given for each."""
    classes: dict[str, type] = {
        "quantizer": registry.load_class("quantizer", options.quantizer, Quantizer),
        "evaluator": registry.load_class("evaluator", single_task(options.task), Evaluator),
    }
    names = [field.name for field in fields(options)]
    return classes, option_fields.distribute(plugin_options, classes, names)
