"""Command options made from a config dataclass: each default is written once, there."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import click

from mmq.errors import InputError, unknown

SWITCH: dict[str, Any] = {"is_flag": False, "flag_value": True, "type": bool}  # value optional
PLUGIN_OPTIONS = {"ignore_unknown_options": True, "allow_extra_args": True}


def flag(name: str) -> str:
    """The option of a field: group_size -> --group-size."""
    return "--" + name.replace("_", "-")


def options_from(config: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a click command one option per field, and the leftovers as the plugins' options.

    The decorated function is called as f(config, extra, **other_parameters).
    """
    fields = dataclasses.fields(config)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @click.pass_context
        @functools.wraps(function)
        def call(context: click.Context, /, **values: Any) -> None:
            own = {field.name: values.pop(field.name) for field in fields}
            function(config(**own), leftovers(context.args), **values)

        wrapped: Any = call
        for field in reversed(fields):
            wrapped = click.option(
                flag(field.name),
                field.name,
                default=field.default,
                show_default=field.default != "",
                help=field.metadata["help"],
                **(SWITCH if field.type in (bool, "bool") else {}),
            )(wrapped)
        result: Callable[..., None] = wrapped
        return result

    return decorate


def leftovers(arguments: list[str]) -> Mapping[str, str]:
    """Unknown options as a mapping; InputError for anything that is not --name value.

    >>> leftovers(["--group-size", "64", "--symmetric=true"])
    {'group-size': '64', 'symmetric': 'true'}
    """
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        head = rest.pop(0)
        name, equals, value = head.removeprefix("--").partition("=")
        if not head.startswith("--") or not name:
            raise InputError(f"{head!r} is not expected here; options are written --name value")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"option {head} has no value; write {head} VALUE")
            value = rest.pop(0)
        found[name] = value
    return found


def no_leftovers(context: click.Context) -> None:
    """Commands without plugin options refuse what they do not know."""
    for name in leftovers(context.args):
        known = [p.opts[0].removeprefix("--") for p in context.command.params]
        raise unknown("option", name, known)
