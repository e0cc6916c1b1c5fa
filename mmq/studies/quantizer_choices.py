"""Several quantizers in one study: which, with which options, and which of them cannot be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mmq.config import TaskOptions
from mmq.contracts import options as plugin_options
from mmq.contracts import registry
from mmq.contracts.evaluator import Evaluator
from mmq.contracts.quantizer import Quantizer
from mmq.errors import InputError
from mmq.models.skeleton import Skeleton
from mmq.prepare import check_layers


@dataclass(frozen=True, slots=True)
class Choice:
    """A quantizer with its label in the study: its name, and the options given with it."""

    label: str
    name: str
    quantizer: Quantizer


def parse(text: str) -> list[tuple[str, str, dict[str, str]]]:
    """Labels, names and options; every installed quantizer where the text is empty.

    >>> parse("rtn,gptq:group-size=64:act-order=false")[1]
    ('gptq:group-size=64:act-order=false', 'gptq', {'group-size': '64', 'act-order': 'false'})
    """
    if not text.strip():
        return [(found.name, found.name, {}) for found in registry.installed("quantizer")]
    chosen: list[tuple[str, str, dict[str, str]]] = []
    for label in (part.strip() for part in text.split(",")):
        name, *given = label.split(":")
        pairs = [option.partition("=") for option in given]
        if not name or not all(key and equals and value for key, equals, value in pairs):
            raise InputError(
                f"quantizers: {label!r} is not of the form name or name:option=value:option=value"
            )
        if len({key.replace("_", "-") for key, *_ in pairs}) < len(pairs):
            raise InputError(f"quantizers: {label!r} has an option twice; give it once")
        if label in (known for known, _, _ in chosen):
            raise InputError(f"quantizers: {label!r} was given twice")
        chosen.append((label, name, {key: value for key, _, value in pairs}))
    return chosen


def build(
    text: str, chosen: TaskOptions, extra: Mapping[str, Any]
) -> tuple[list[Choice], Evaluator, dict[str, str]]:
    """The quantizers that can be used, the evaluator, and why the others cannot.

    Options in `extra` go to the evaluator, or to every quantizer that has them; what is given
    with a quantizer counts more. InputError for a name or an option that nothing has.
    """
    evaluator_class = registry.load_class("evaluator", chosen.task, Evaluator)
    wanted, problems = parse(text), {}
    classes: dict[str, type] = {}
    known = {found.name for found in registry.installed("quantizer")}
    for label, name, _ in wanted:
        try:
            classes[label] = registry.load_class("quantizer", name, Quantizer)
        except InputError as error:
            if name not in known:
                raise
            problems[label] = str(error)
    own = [field.name for field in fields(chosen)]
    roles = {"evaluator": evaluator_class, **classes}
    given = plugin_options.distribute(extra, roles, own, sharing=classes)
    choices = []
    for label, name, options in wanted:
        if label not in classes:
            continue
        mine = plugin_options.distribute(options, {label: classes[label]})[label]
        quantizer: Quantizer = plugin_options.build(classes[label], given[label] | mine)
        choices.append(Choice(label, name, quantizer))
    return choices, plugin_options.build(evaluator_class, given["evaluator"]), problems


def fitting(
    choices: Sequence[Choice], seen: Skeleton, widths: Mapping[str, Sequence[int]]
) -> tuple[list[Choice], dict[str, str]]:
    """Those that can take every layer, and why the others cannot."""
    usable, problems = [], {}
    for choice in choices:
        try:
            check_layers(seen, choice.quantizer, widths)
        except InputError as error:
            problems[choice.label] = str(error)
        else:
            usable.append(choice)
    return usable, problems
