"""The quantizers of a study with their options, and why some of them cannot be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mmq.config import TaskOptions
from mmq.contracts import options as option_fields
from mmq.contracts import registry
from mmq.contracts.evaluator import Evaluator
from mmq.contracts.quantizer import Quantizer
from mmq.errors import InputError
from mmq.model_setup import check_layers
from mmq.models.skeleton import Skeleton
from mmq.quantization import by_width
from mmq.task_names import single_task


@dataclass(frozen=True, slots=True)
class Choice:
    """A quantizer with its label in the study: its name and the options written with it."""

    label: str
    name: str
    quantizer: Quantizer


def parse(text: str) -> list[tuple[str, str, dict[str, str]]]:
    """Labels, names and options; every installed quantizer if the text is empty.

    >>> parse("rtn,gptq:group-size=64:act-order=false")[1]
    ('gptq:group-size=64:act-order=false', 'gptq', {'group-size': '64', 'act-order': 'false'})
    """
    if not text.strip():
        return [(plugin.name, plugin.name, {}) for plugin in registry.installed("quantizer")]
    parsed: list[tuple[str, str, dict[str, str]]] = []
    for label in (part.strip() for part in text.split(",")):
        name, *texts = label.split(":")
        pairs = [option.partition("=") for option in texts]
        if not name or not all(key and equals and value for key, equals, value in pairs):
            raise InputError(
                f"quantizers: {label!r} is not a quantizer; write name or name:option=value "
                f"(e.g. gptq:group-size=64)"
            )
        if len({key.replace("_", "-") for key, *_ in pairs}) < len(pairs):
            raise InputError(f"quantizers: {label!r} has an option twice; give it once")
        if label in (other for other, _, _ in parsed):
            raise InputError(f"quantizers: {label!r} is given twice")
        parsed.append((label, name, {key: value for key, _, value in pairs}))
    return parsed


def build(
    text: str, options: TaskOptions, plugin_options: Mapping[str, Any]
) -> tuple[list[Choice], Evaluator, dict[str, str]]:
    """The usable quantizers, the evaluator, and why the other quantizers cannot be used.

    plugin_options: go to the evaluator, or to every quantizer that has them; options written with
    a quantizer override them. InputError for an unknown name or option.
    """
    evaluator_class = registry.load_class("evaluator", single_task(options.task), Evaluator)
    parsed, problems = parse(text), {}
    classes: dict[str, type] = {}
    names = {plugin.name for plugin in registry.installed("quantizer")}
    for label, name, _ in parsed:
        try:
            classes[label] = registry.load_class("quantizer", name, Quantizer)
        except InputError as error:
            if name not in names:
                raise
            problems[label] = str(error)
    command_options = [field.name for field in fields(options)]
    roles = {"evaluator": evaluator_class, **classes}
    plugin_values = option_fields.distribute(
        plugin_options, roles, command_options, sharing=classes
    )
    choices = []
    for label, name, own_options in parsed:
        if label not in classes:
            continue
        overrides = option_fields.distribute(own_options, {label: classes[label]})[label]
        quantizer = by_width.build(classes[label], plugin_values[label] | overrides)
        choices.append(Choice(label, name, quantizer))
    return choices, option_fields.build(evaluator_class, plugin_values["evaluator"]), problems


def fitting(
    choices: Sequence[Choice], outline: Skeleton, widths: Mapping[str, Sequence[int]]
) -> tuple[list[Choice], dict[str, str]]:
    """The quantizers that fit every layer, and why the others do not."""
    usable, problems = [], {}
    for choice in choices:
        try:
            check_layers(outline, choice.quantizer, widths)
        except InputError as error:
            problems[choice.label] = str(error)
        else:
            usable.append(choice)
    return usable, problems
