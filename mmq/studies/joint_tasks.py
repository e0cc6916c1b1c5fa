"""Several tasks prepared for one model: the same allocations are scored on all of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from mmq.analysis.fronts import Point
from mmq.analysis.joint import Combine, parse_combine
from mmq.config import EvalOptions
from mmq.contracts import Metric, registry
from mmq.contracts import options as option_fields
from mmq.contracts.evaluator import Evaluator
from mmq.contracts.quantizer import Quantizer
from mmq.data.calibration import Calibration, check_texts
from mmq.data.calibration_mix import shares
from mmq.data.calibration_split import check_apart
from mmq.errors import InputError
from mmq.eval_spec import JointSpec
from mmq.evaluation.generating import Task
from mmq.model_setup import Allocations, ModelSetup, check_settings
from mmq.prepare import Prepared, prepare, prepare_task
from mmq.quantization import by_width
from mmq.studies.baseline import check_baseline
from mmq.system.hashing import digest
from mmq.task_names import by_task, fields_by_task, has_several, mix_by_task, parse_tasks


@dataclass(slots=True)
class JointPrepared(Prepared):
    """A checked joint spec; the inherited fields are those of the model, which all tasks share.

    tasks: the eval spec, the evaluator and the samples of each task, by label.
    """

    tasks: Mapping[str, Prepared] = field(default_factory=dict)

    @classmethod
    def of(cls, tasks: Mapping[str, Prepared], combine: Combine) -> "JointPrepared":
        """The tasks of one model and quantizer."""
        first = next(iter(tasks.values()))
        own = {f.name: getattr(first, f.name) for f in fields(Prepared)}
        specs = {label: task.eval_spec for label, task in tasks.items()}
        return cls(**(own | {"eval_spec": JointSpec.of(specs, combine)}), tasks=tasks)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The range of a share of the unquantized score; None if a score can be negative."""
        bounds = [task.bounds for task in self.tasks.values()]
        return (0.0, math.inf) if all(b is not None and b[0] >= 0 for b in bounds) else None

    @property
    def combine(self) -> Combine:
        """How shares become one score."""
        spec = self.eval_spec
        assert isinstance(spec, JointSpec)
        return parse_combine(spec.combine)

    @property
    def highest(self) -> dict[str, float]:
        """The highest possible score of a sample, by task; infinite where it is unknown."""
        bounds = {
            label: None if task.evaluator.pooled else task.bounds
            for label, task in self.tasks.items()
        }
        return {label: math.inf if b is None else b[1] for label, b in bounds.items()}

    def check_unquantized(self, point: Point) -> None:
        """InputError if the unquantized model scores nothing on one of the tasks."""
        for result in point.tasks:
            task = self.tasks[result.label]
            score = Metric(result.score, len(task.samples), result.low, result.high)
            check_baseline(score, f"{result.label}/score", task.bounds)

    @property
    def clusters(self) -> list[str]:
        """The picture of every sample, of one task after another."""
        return [f"{label}/{picture}" for label, own in self.pictures.items() for picture in own]

    @property
    def pictures(self) -> dict[str, list[str]]:
        """The picture of every sample, by task."""
        return {label: task.clusters for label, task in self.tasks.items()}

    @property
    def scored_tasks(self) -> Mapping[str, Task]:
        """The tasks by label."""
        return {label: task.task for label, task in self.tasks.items()}

    def open(self) -> None:
        """Start the scorers."""
        for task in self.tasks.values():
            task.open()

    def close(self) -> None:
        """Stop the scorers."""
        for task in self.tasks.values():
            task.close()

    def pairs(self) -> Calibration:
        """The calibration pairs of all tasks."""
        pairs = [pair for task in self.tasks.values() for pair in task.pairs().pairs]
        return Calibration(tuple(pairs), self.inputs)


def prepare_tasks(
    options: EvalOptions,
    plugin_options: Mapping[str, Any],
    combine: str,
    allocations: Allocations,
    pairs: bool = False,
) -> Prepared:
    """Prepare the task, or the tasks, that the options name; see `prepare`."""
    parsed = parse_combine(combine)
    if has_several(options.task):
        return prepare_joint(options, plugin_options, parsed, allocations, pairs)
    return prepare(options, plugin_options, allocations, pairs)


def prepare_joint(
    options: EvalOptions,
    plugin_options: Mapping[str, Any],
    combine: Combine,
    allocations: Allocations,
    pairs: bool = False,
) -> JointPrepared:
    """Prepare several tasks on one model; see `prepare`.

    The calibration pairs of all tasks are mixed in equal numbers: blocks are quantized once, for
    all of them.
    """
    of_task = options_by_task(options)
    quantizer, evaluators = build_joint_plugins(options, plugin_options)
    named = [(options.quantizer, quantizer)]
    for own in of_task.values():
        check_settings(own)
    model = ModelSetup.of(next(iter(of_task.values())), named, allocations)
    tasks: dict[str, Prepared] = {}
    for label, own in of_task.items():
        try:
            (tasks[label],) = prepare_task(model, own, evaluators[label], named, pairs)
        except InputError as error:
            raise InputError(f"{label}: {error}") from error
    if quantizer.calibrated or pairs:
        tasks = _mixed(tasks)
    return JointPrepared.of(tasks, combine)


def options_by_task(options: EvalOptions) -> dict[str, EvalOptions]:
    """The options of each task by its label."""
    tasks = parse_tasks(options.task)
    labels = list(tasks)
    data = by_task("data", options.data, labels, "FOLDER")
    dataset = by_task("dataset", options.dataset, labels, "DATASET")
    limit = by_task("limit", options.limit, labels, "500")
    calibration = mix_by_task("calibration-data", options.calibration_data, labels, "train.csv")
    columns = fields_by_task(options.fields, labels)
    counts = shares([1.0] * len(labels), options.calibration_samples)
    return {
        label: replace(
            options,
            task=tasks[label],
            data=data[label],
            dataset=dataset[label],
            limit=limit[label],
            calibration_data=calibration[label],
            fields=columns[label],
            calibration_samples=count,
        )
        for label, count in zip(labels, counts, strict=True)
    }


def build_joint_plugins(
    options: EvalOptions, plugin_options: Mapping[str, Any]
) -> tuple[Quantizer, dict[str, Evaluator]]:
    """Build the quantizer, and an evaluator per task, with their options."""
    classes, values = joint_options(options, plugin_options)
    quantizer = by_width.build(classes["quantizer"], values["quantizer"])
    evaluators: dict[str, Evaluator] = {
        label: option_fields.build(classes[label], values[label])
        for label in parse_tasks(options.task)
    }
    return quantizer, evaluators


def joint_options(
    options: EvalOptions, plugin_options: Mapping[str, Any]
) -> tuple[dict[str, type], dict[str, dict[str, Any]]]:
    """The plugin classes, and the options given for each: of "quantizer", and by task.

    LABEL.OPTION is for one task; OPTION is for every task that has it.
    """
    tasks = parse_tasks(options.task)
    classes: dict[str, type] = {
        "quantizer": registry.load_class("quantizer", options.quantizer, Quantizer)
    }
    classes |= {
        label: registry.load_class("evaluator", name, Evaluator) for label, name in tasks.items()
    }
    task_options = {
        name.removeprefix("evaluator."): value for name, value in plugin_options.items()
    }
    # what one task is given replaces what all are given
    special = {
        k: v for k, v in task_options.items() if k.rpartition(".")[0].replace("_", "-") in tasks
    }
    general = {k: v for k, v in task_options.items() if k not in special}
    names = [f.name for f in fields(options)]
    values = option_fields.distribute(general, classes, names, sharing=list(tasks))
    for label, own in option_fields.distribute(special, classes, names).items():
        values[label] |= own
    return classes, values


def _mixed(tasks: Mapping[str, Prepared]) -> dict[str, Prepared]:
    """The tasks with eval specs that name the pairs of all of them.

    InputError if a picture of one task's pairs is evaluated in another task.
    """
    pairs = [pair for task in tasks.values() for pair in task.calibration]
    first = next(iter(tasks.values()))
    if first.quantizer.calibrated:
        check_texts(pairs, first.skeleton.family, first.widths)
    samples = [sample for task in tasks.values() for sample in task.samples]
    images = {image for sample in (*pairs, *samples) for image in sample.images}
    check_apart(pairs, samples, {image: image.digest() for image in images})
    fingerprints = [task.eval_spec.calibration for task in tasks.values()]
    mix = digest(fingerprints) if any(fingerprints) else ""
    return {
        label: replace(
            task,
            eval_spec=replace(task.eval_spec, calibration=mix, calibration_samples=len(pairs)),
        )
        for label, task in tasks.items()
    }
