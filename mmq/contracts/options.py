"""Options of a plugin: the fields of its dataclass, parsed from text with clear errors."""

import dataclasses
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from mmq.contracts import registry
from mmq.errors import InputError, unknown

T = TypeVar("T")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def convert(name: str, text: Any, kind: Any) -> Any:
    """The value of an option of type bool, int, float or str (or None); InputError if invalid.

    text: as written on a command line, or a value of that type already.
    """
    if not isinstance(text, str):
        if text is not None and not _fits(text, kind):
            raise InputError(f"{name}: {text!r} is not valid for this option ({_type_name(kind)})")
        return text
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise InputError(f"{name}: {text!r} is not one of {list(get_args(kind))}")
        return text
    if get_origin(kind) in (Union, UnionType):
        kind = next(k for k in get_args(kind) if k is not NoneType)
    if kind not in (bool, int, float, str, Path):
        raise InputError(f"{name}: options of type {kind} cannot be given on the command line")
    try:
        return _BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        descriptions = {bool: "true or false", int: "a whole number", float: "a number"}
        raise InputError(f"{name}: {text!r} is not {descriptions.get(kind, kind)}") from error


def field_types(plugin: type) -> dict[str, Any]:
    """Option names of a plugin class with their types."""
    if not dataclasses.is_dataclass(plugin):
        return {}
    hints = get_type_hints(plugin) if dataclasses.is_dataclass(plugin) else {}
    return {f.name: hints[f.name] for f in dataclasses.fields(plugin) if f.init}


def values(plugin: Any) -> dict[str, Any]:
    """The options of a plugin with their values."""
    return {name: getattr(plugin, name) for name in field_types(type(plugin))}


def build(plugin: type[T], options: Mapping[str, Any]) -> T:
    """Construct a plugin from options; ValueErrors of its checks become InputErrors."""
    types = field_types(plugin)
    values = {name: convert(name, text, types[name]) for name, text in options.items()}
    try:
        return plugin(**values)
    except InputError:
        raise
    except (TypeError, ValueError) as error:  # TypeError: an option without a default
        raise _invalid(plugin, error) from error


def fill_unset(plugin: T, defaults: Mapping[str, Any]) -> T:
    """The plugin with values for options that are None.

    defaults: by option, as JSON has them. InputError for an unknown option or a wrong value.
    """
    types = field_types(type(plugin))
    for name, value in defaults.items():
        if name not in types:
            raise unknown("option", name, types)
        if value is not None and not _fits(value, types[name]):
            raise InputError(
                f"{name}: {value!r} is not valid for this option ({_type_name(types[name])})"
            )
    unset = {name: v for name, v in defaults.items() if getattr(plugin, name) is None}
    try:
        return dataclasses.replace(cast(Any, plugin), **unset)  # type: ignore[no-any-return]
    except ValueError as error:
        raise _invalid(type(plugin), error) from error


def _invalid(plugin: type, error: Exception) -> InputError:
    """The error of a plugin's check, with the plugin's name unless it starts with an option."""
    named = str(error).partition(":")[0] in field_types(plugin)
    return InputError(str(error) if named else f"{plugin.__name__}: {error}")


def _type_name(kind: Any) -> str:
    """An option's type as a person writes it: int, float or None."""
    return kind.__name__ if isinstance(kind, type) else str(kind).replace(" | ", " or ")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value from JSON has an option's type; an int is accepted as a float."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, k) for k in get_args(kind) if k is not NoneType)
    return type(value) is kind or (kind is float and type(value) is int)


def distribute(
    extra: Mapping[str, Any],
    plugins: Mapping[str, type],
    command_options: Iterable[str] = (),
    sharing: Container[str] = (),
) -> dict[str, dict[str, Any]]:
    """Give each leftover command option to the plugin that has a field of that name.

    Keys may be `group-size`, `group_size` or, where two plugins share a name,
    `quantizer.group-size`. Roles in `sharing` all get an option that several of them have.
    InputError for an unknown or otherwise ambiguous name; it suggests `command_options`, too.
    """
    options: dict[str, dict[str, Any]] = {role: {} for role in plugins}
    fields = [(role, name) for role, plugin in plugins.items() for name in field_types(plugin)]
    for key, value in extra.items():
        name_in_key = key.replace("-", "_")
        matches = [
            (role, name)
            for role, name in fields
            if name_in_key in (name, f"{role.replace('-', '_')}.{name}")
        ]
        if not matches:
            if others := registry.plugins_with(name_in_key):
                raise InputError(
                    f"option --{key.replace('_', '-')} belongs to {', '.join(others)}; choose one "
                    f"of them, or leave the option out"
                )
            names = {name.replace("_", "-") for _, name in fields}
            names |= {option.replace("_", "-") for option in command_options}
            raise unknown("option", key, names)
        if len(matches) > 1 and not all(role in sharing for role, _ in matches):
            raise InputError(
                f"option {key!r} belongs to several plugins; write one of "
                + ", ".join(f"{role}.{name}" for role, name in matches)
            )
        for role, name in matches:
            if name in options[role]:
                raise InputError(f"option {key!r} is given twice, for {role}.{name}; give it once")
            options[role][name] = value
    return options
