"""Command options generated from a config dataclass, where each default is written once."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from mmq.config import flag
from mmq.errors import InputError, unknown
from mmq.system.progress import notify
from mmq.system.worker import is_worker

log = logging.getLogger(__name__)


class TrueOrFalse(click.types.BoolParamType):
    """A boolean whose error has the two words to write."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> bool:
        """The value of a text such as false, no or 0."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not true or false.", param, ctx)


SWITCH: dict[str, Any] = {"is_flag": False, "flag_value": True, "type": TrueOrFalse()}
REPEATED: dict[str, Any] = {"multiple": True, "callback": lambda _, __, values: ",".join(values)}


def options_from(config: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add one option per field to a click command; unknown options are passed to the plugins.

    The decorated function is called as f(options, plugin_options, **other_parameters).
    """
    fields = dataclasses.fields(config)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @click.pass_context
        @functools.wraps(function)
        def call(context: click.Context, /, **values: Any) -> None:
            if "task" in values and not is_worker():  # before imports that take seconds
                notify("Checking the model, the data and the options.")
            own = {field.name: values.pop(field.name) for field in fields}
            rest = leftovers(context.args)  # first: a stray argument may be a misspelled option
            function(config(**own), rest, **values)

        wrapped: Any = call
        for field in reversed(fields):
            repeated = field.metadata.get("repeatable", False)
            wrapped = click.option(
                flag(field.name),
                field.name,
                default=None if repeated else field.default,
                show_default=field.default != "",
                help=field.metadata["help"],
                **(SWITCH if field.type in (bool, "bool") else REPEATED if repeated else {}),
            )(wrapped)
        result: Callable[..., None] = wrapped
        return result

    return decorate


def leftovers(arguments: list[str]) -> Mapping[str, str]:
    """Unknown options as a mapping; InputError for anything but --name value.

    >>> leftovers(["--group-size", "64", "--symmetric=true"])
    {'group-size': '64', 'symmetric': 'true'}
    """
    options: dict[str, str] = {}
    spelled: dict[str, str] = {}  # --group-size and --group_size are the same option
    rest = list(arguments)
    while rest:
        head = rest.pop(0)
        name, equals, value = head.removeprefix("--").partition("=")
        if not head.startswith("--") or not name:
            raise InputError(f"unexpected argument {head!r}; write options as --name value")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"option {head} has no value; write {head} VALUE")
            value = rest.pop(0)
        plain = name.replace("_", "-")
        if plain in spelled:
            raise InputError(
                f"option --{name} is given twice, as {options[spelled[plain]]!r} and {value!r}; "
                f"give it once"
            )
        spelled[plain] = name
        options[name] = value
    return options


def report_repeated(command: click.Command, arguments: Sequence[str]) -> None:
    """Warn about each of the command's own options that is repeated: click uses the last one.

    `leftovers` handles unknown options.
    """
    params = {name: param for param in command.params for name in param.opts}
    given: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        param = params.get(name)
        if not isinstance(param, click.Option) or param.is_flag or param.multiple:
            continue
        if not equals and rest and not (param.flag_value is True and rest[0].startswith("-")):
            value = rest.pop(0)
        if param.name in given:
            log.warning(
                "option %s is given twice: %r is ignored, %r is used",
                name, given[param.name], value,
            )  # fmt: skip
        given[param.name or name] = value


def no_leftovers(context: click.Context) -> None:
    """InputError for an unknown option of a command that has no plugin options."""
    for name in leftovers(context.args):
        names = [p.opts[0].removeprefix("--") for p in context.command.params]
        raise unknown("option", name, names)
