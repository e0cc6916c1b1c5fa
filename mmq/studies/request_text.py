"""The request of a study, as a command that repeats it."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def command_line(command: str, options: Any, plugin_options: Mapping[str, Any]) -> str:
    """The command with every option that has another value than its default.

    options: the command's dataclass. The same whether a shell, `mlflow run` or Python started it.
    """
    values = {
        field.name: getattr(options, field.name)
        for field in fields(options)
        if getattr(options, field.name) != field.default
    }
    values |= plugin_options
    words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    return shlex.join(["mmq", command, *words])
