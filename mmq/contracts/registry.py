"""Plugins by name: listed from installed metadata, imported on first use."""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mmq.errors import InputError, unknown
from mmq.system.source_hash import code_hash

GROUPS = {
    "quantizer": "mmq.quantizers",
    "evaluator": "mmq.evaluators",
    "model family": "mmq.models",
    "dataset": "mmq.datasets",
    "checkpoint": "mmq.checkpoints",  # functions that return the folder of a bundled model
    "command": "mmq.commands",
    "target": "mmq.targets",
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
        found = Installed(kind, entry.name, distribution, version, entry)
        other = table.get(entry.name)
        if other and other.entry_point.value != entry.value:
            raise InputError(
                f"Two installed distributions provide the {kind} {entry.name!r}: "
                f"{other.distribution} and {distribution}. Uninstall one of them."
            )
        table[entry.name] = found
    return table


def installed(kind: str) -> list[Installed]:
    """All plugins of a kind, by name, without importing any."""
    return [_table(kind)[name] for name in sorted(_table(kind))]


def load(kind: str, name: str) -> Any:
    """The plugin's class or function; InputError for an unknown name or a missing package."""
    table = _table(kind)
    if name not in table:
        raise unknown(kind, name, table)
    found = table[name]
    try:
        return found.entry_point.load()
    except Exception as error:  # a stranger's module can raise anything
        extras = ", ".join(found.entry_point.extras)
        hint = f"pip install '{found.distribution}[{extras}]'" if extras else "install it"
        raise InputError(
            f"The {kind} {name!r} of {found.distribution} cannot be imported "
            f"({type(error).__name__}: {error}). If a package is missing: {hint}."
        ) from error


def load_class(kind: str, name: str, base: type) -> Any:
    """A plugin class of this base; InputError where the entry point names something else."""
    plugin = load(kind, name)
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        raise InputError(
            f"The {kind} {name!r} of {_table(kind)[name].distribution} is no subclass of "
            f"mmq.contracts.{base.__name__}."
        )
    return plugin


def origin(kind: str, name: str) -> str:
    """Distribution, version and a hash of the plugin's module: other code, other origin."""
    found = _table(kind)[name]
    return f"{found.distribution} {found.version} {code_hash(load(kind, name).__module__)[:8]}"


def refresh() -> None:
    """Forget what was listed, after an installation in this process."""
    _table.cache_clear()
