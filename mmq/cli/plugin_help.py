"""The options of plugins in the help of a command that is given those plugins."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from mmq.config import flag
from mmq.contracts import registry

KINDS = {  # of plugins, by the command option that names them
    "quantizer": "quantizer",
    "quantizers": "quantizer",
    "task": "evaluator",
    "target": "target",
    "launcher": "launcher",
}
Rows = list[tuple[str, str]]


def plugin_sections(
    params: Iterable[click.Parameter], arguments: Sequence[str]
) -> Iterator[tuple[str, Rows | str]]:
    """A title and the options of each plugin in the arguments; a hint if there are none.

    InputError for a plugin that is not installed.
    """
    options = [param.name for param in params if param.name in KINDS]
    plugins = [plugin for name in options for plugin in _named(str(name), arguments)]
    for kind, name in dict.fromkeys(plugins):
        rows = option_rows(registry.load(kind, name))
        yield f"Options of the {kind} {name}", rows or "None."
    if options and not plugins:
        yield (
            "Plugins",
            (
                f"Pass the options of plugins like any other. Name a plugin to list its own, e.g. "
                f"{flag(str(options[0]))} NAME --help; `mmq plugins` lists the names."
            ),
        )


def _named(option: str, arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Kind and name of the plugins that an option names in the arguments."""
    for k, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name != flag(option):
            continue
        if not equals:
            value = arguments[k + 1] if k + 1 < len(arguments) else ""
        for each in value.split(","):
            plugin = each.partition(":")[0].strip()
            if plugin and not plugin.startswith("-") and "=" not in plugin:
                yield KINDS[option], plugin


def option_rows(plugin: type) -> Rows:
    """Each option of a plugin with its help and its default."""
    if not dataclasses.is_dataclass(plugin):
        return []
    fields = [field for field in dataclasses.fields(plugin) if field.init]
    texts = option_texts(plugin, [field.name for field in fields])
    return [(flag(f.name), f"{texts.get(f.name, '')}{_default(f)}".strip()) for f in fields]


def _default(field: "dataclasses.Field[Any]") -> str:
    value = field.default
    return "" if value in (None, "", dataclasses.MISSING) else f"  [default: {value}]"


def option_texts(plugin: type, names: Sequence[str]) -> dict[str, str]:
    """Help for the options of a plugin, from its docstrings and those of its base classes.

    A docstring describes them in sentences that start with `name:` or `name, name:`.
    """
    name = "|".join(sorted(names, key=len, reverse=True))
    start = re.compile(rf"(?:^|(?<=\s))((?:{name})(?:, (?:{name}))*): ")
    texts: dict[str, str] = {}
    for base in plugin.__mro__:
        pieces = start.split(" ".join((base.__doc__ or "").split())) if name else []
        for described, text in zip(pieces[1::2], pieces[2::2], strict=True):
            for option in described.split(", "):
                texts.setdefault(option, text.strip()[:1].upper() + text.strip()[1:])
    return texts
