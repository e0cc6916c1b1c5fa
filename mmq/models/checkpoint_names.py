"""Which tensor of a checkpoint each parameter of a model is loaded from.

Names in files are older than those in memory. Calls private functions of transformers, like
`transformers_loading`; a test runs it with both versions.
"""

from collections.abc import Iterable
from typing import Any

from torch import nn


def stored_names(module: nn.Module, stored: Iterable[str]) -> dict[str, str]:
    """The stored tensor's name by parameter; parameters made of several tensors are left out.

    module: a transformers model, on the meta device too. stored: names in the checkpoint's files.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:  # before 5.0
        names = _before_5(module, list(stored))
    else:
        names = _since_5(module, get_model_conversion_mapping(module), list(stored))
    own = module.state_dict().keys()
    found: dict[str, str] = {}
    several: set[str] = set()
    for name, parameter in names.items():
        if parameter in found:
            several.add(parameter)
        if parameter in own:
            found[parameter] = name
    return {parameter: name for parameter, name in found.items() if parameter not in several}


def _before_5(module: Any, stored: list[str]) -> dict[str, str]:
    own, prefix = set(module.state_dict()), module.base_model_prefix
    mapping = getattr(module, "_checkpoint_conversion_mapping", None)
    names: dict[str, str] = module._get_key_renaming_mapping(stored, mapping)
    for name, parameter in names.items():
        if parameter not in own and f"{prefix}.{parameter}" in own:
            names[name] = f"{prefix}.{parameter}"
    return names


def _since_5(module: Any, mapping: list[Any], stored: list[str]) -> dict[str, str]:
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    own, prefix = module.state_dict(), module.base_model_prefix
    names: dict[str, str] = {}
    for name in stored:
        parameter, converted = rename_source_key(name, renamings, converters, prefix, own)
        if parameter not in own and name in own:
            parameter, converted = rename_source_key(name, [], [], prefix, own)
        if converted is None:
            names[name] = parameter
    return names
