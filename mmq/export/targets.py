"""Export targets by name, with their options and engine."""

import importlib
from collections.abc import Mapping
from typing import Any, cast

from mmq.contracts import options as plugin_options
from mmq.contracts import registry
from mmq.contracts.target import Target
from mmq.errors import InputError


def target_class(name: str) -> type[Target]:
    """The class of `NAME` or `NAME:ENGINE`; InputError for an unknown target."""
    return cast(type[Target], registry.load_class("target", name.partition(":")[0], Target))


def split_options(name: str, extra: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The target's options among leftover command options, and the others.

    Keys may be `engine` or, where another plugin has one of that name, `target.engine`.
    """
    fields = plugin_options.field_types(target_class(name))
    own: dict[str, str] = {}
    rest: dict[str, str] = {}
    for key, value in extra.items():
        plain = key.replace("-", "_").removeprefix("target.")
        name_of = next((name for name in (plain, f"{plain}_") if name in fields), None)  # from_
        if name_of is not None:
            own[name_of] = value
        else:
            rest[key] = value
    return own, rest


def build_target(name: str, options: Mapping[str, str]) -> Target:
    """The target of `NAME` or `NAME:ENGINE`; InputError for an engine that it lacks."""
    plugin = target_class(name)
    base, _, engine = name.partition(":")
    values = dict(options)
    if engine:
        if "engine" not in plugin_options.field_types(plugin):
            raise InputError(f"target: {base} has one engine only; write --target {base}")
        if values.setdefault("engine", engine) != engine:
            raise InputError(f"target: {name} and --engine {values['engine']} differ; give one")
    return plugin_options.build(plugin, values)


def check_installed(target: Target, engine: bool = True) -> None:
    """InputError that names the extra to install, if a package that writes the files is missing.

    engine: also check the packages that run them.
    """
    for package in (*target.packages, *(target.engine_packages if engine else ())):
        need(package, target.extra)


def need(package: str, extra: str) -> Any:
    """A package that an extra of mmq installs; InputError naming the extra where it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{package} cannot be imported ({error}); run pip install 'mmq[{extra}]'"
        ) from error
