"""Plugins by name: listed from installed metadata, imported on first use."""

from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mmq.errors import InputError, unknown
from mmq.system.source_hash import source_hash

GROUPS = {
    "quantizer": "mmq.quantizers",
    "evaluator": "mmq.evaluators",
    "model family": "mmq.models",
    "dataset": "mmq.datasets",
    "checkpoint": "mmq.checkpoints",  # functions that return the folder of a bundled model
    "command": "mmq.commands",
    "target": "mmq.targets",
    "launcher": "mmq.launchers",
    "function": "mmq.api",  # offered by `import mmq`, implemented by another package
}


@dataclass(frozen=True, slots=True)
class Installed:
    """A plugin as its distribution declares it; nothing is imported yet."""

    kind: str
    name: str
    distribution: str
    version: str
    entry_point: EntryPoint


@cache
def _table(kind: str) -> dict[str, Installed]:
    table: dict[str, Installed] = {}
    for entry in entry_points(group=GROUPS[kind]):
        distribution = entry.dist.name if entry.dist else "unknown"
        version = entry.dist.version if entry.dist else "unknown"
        plugin = Installed(kind, entry.name, distribution, version, entry)
        other = table.get(entry.name)
        if other and other.entry_point.value != entry.value:
            raise InputError(
                f"Two installed distributions provide the {kind} {entry.name!r}: "
                f"{other.distribution} and {distribution}. Uninstall one of them."
            )
        table[entry.name] = plugin
    return table


def installed(kind: str) -> list[Installed]:
    """All plugins of a kind, by name, without importing any."""
    return [_table(kind)[name] for name in sorted(_table(kind))]


def load(kind: str, name: str) -> Any:
    """The plugin's class or function; InputError for an unknown name or a missing package."""
    table = _table(kind)
    if name not in table:
        raise unknown(kind, name, table)
    plugin = table[name]
    try:
        return plugin.entry_point.load()
    except Exception as error:  # a third-party module can raise anything
        extras = ", ".join(plugin.entry_point.extras)
        hint = f"pip install '{plugin.distribution}[{extras}]'" if extras else "install it"
        raise InputError(
            f"The {kind} {name!r} of {plugin.distribution} cannot be imported "
            f"({type(error).__name__}: {error}). If a package is missing: {hint}."
        ) from error


def load_class(kind: str, name: str, base: type) -> Any:
    """A plugin class of this base; InputError if the entry point is something else.

    name: of a plugin, or NAME:VARIANT for a class with variants, such as lmms:chartqa.
    """
    variant = ""
    if hasattr(base, "variant"):
        name, _, variant = name.partition(":")
    plugin = load(kind, name)
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        raise InputError(
            f"The {kind} {name!r} of {_table(kind)[name].distribution} is not a subclass of "
            f"mmq.contracts.{base.__name__}."
        )
    checked: Any = plugin
    return checked.variant(variant) if variant else checked


@dataclass(frozen=True, slots=True)
class Identity:
    """Identifies the plugin that a result comes from.

    version: of the class (`Quantizer.version` and so on), raised when its results change. origin:
    the distribution's version and a hash of the source; logged only.
    """

    name: str
    distribution: str
    version: int
    origin: str


def identity(kind: str, plugin: type) -> Identity:
    """The identity of an installed plugin's class; InputError for one that is not installed."""
    value = f"{plugin.__module__}:{plugin.__qualname__}"
    for entry in installed(kind):
        if entry.entry_point.value.partition(" ")[0] == value:
            version: int = getattr(plugin, "version", 1)
            origin = f"{entry.distribution} {entry.version} {source_hash(plugin.__module__)[:8]}"
            return Identity(entry.name, entry.distribution, version, origin)
    names = ", ".join(entry.name for entry in installed(kind)) or "none"
    raise InputError(
        f"The {kind} {plugin.__qualname__} of {plugin.__module__} is not installed as a plugin. "
        f"Declare it as an entry point of {GROUPS[kind]!r} and install its distribution. "
        f"Installed: {names}."
    )


def plugins_with(option: str) -> list[str]:
    """The quantizers, evaluators, targets and launchers that have an option of this name.

    Imports all of them: for error messages.
    """
    names = []
    for kind in ("quantizer", "evaluator", "target", "launcher"):
        for plugin in installed(kind):
            try:
                loaded = load(kind, plugin.name)
            except InputError:  # a package is missing: it cannot be chosen either
                continue
            if is_dataclass(loaded) and option in {f.name for f in fields(loaded) if f.init}:
                names.append(plugin.name)
    return list(dict.fromkeys(names))


def refresh() -> None:
    """Clear the cached lists, after an installation in this process."""
    _table.cache_clear()
