"""The tensors of a checkpoint that each parameter of a model is loaded from.

Names in files are older than those in memory, and experts that are one parameter in memory are
often one tensor each in files. Calls private functions of transformers, like
`transformers_loading`; a test runs it with both versions.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mmq.models.checkpoint_weights import Stored
from mmq.tensors.matrices import matrices
from mmq.tensors.stored_experts import StoredExperts


@dataclass(frozen=True, slots=True)
class Conversion:
    """How transformers makes a parameter of several tensors, or of one in another layout.

    converter: transformers' own. sources: the names of the tensors by its source pattern. target:
    the parameter's position among those that it makes.
    """

    converter: Any
    sources: dict[str, list[str]] = field(default_factory=dict)
    target: int = 0

    def convert(self, module: nn.Module, parameter: str, read: Callable[[str], Tensor]) -> Tensor:
        """The parameter, converted by transformers. read: returns a tensor by its name."""
        converter = copy.deepcopy(self.converter)
        for pattern, names in self.sources.items():
            for name in names:
                converter.add_tensor(parameter, name, pattern, read(name))
        tensor: Tensor = converter.convert(
            parameter, model=module, config=getattr(module, "config", None)
        )[parameter]
        return tensor


def stored_names(module: nn.Module, stored: Iterable[str]) -> dict[str, str]:
    """The stored tensor's name by parameter; parameters made of several tensors are left out.

    module: a transformers model, on the meta device too. stored: names in the checkpoint's files.
    """
    own = module.state_dict().keys()
    names: dict[str, str] = {}
    several: set[str] = set()
    for name, (parameter, converter) in _parameters(module, stored).items():
        if converter is not None:
            continue
        if parameter in names:
            several.add(parameter)
        if parameter in own:
            names[parameter] = name
    return {parameter: name for parameter, name in names.items() if parameter not in several}


def conversions(module: nn.Module, stored: Iterable[str]) -> dict[str, Conversion]:
    """How each parameter is made that is not stored as it is, by name; see `stored_names`."""
    own = module.state_dict().keys()
    by_parameter: dict[str, Conversion] = {}
    for name, (parameter, matched) in _parameters(module, stored).items():
        if matched is None or parameter not in own:
            continue
        converter, pattern = matched
        first, *_ = targets = converter.target_patterns
        for k, target in enumerate(targets):
            one = parameter if k == 0 else parameter.replace(first, target)
            conversion = by_parameter.setdefault(one, Conversion(converter, target=k))
            conversion.sources.setdefault(pattern, []).append(name)
    return by_parameter


def stored_experts(module: nn.Module, stored: Mapping[str, Stored]) -> dict[str, StoredExperts]:
    """The tensors that hold each parameter of experts, by its name.

    Parameters that are made in a way other than by stacking, joining rows and transposing are
    left out. module, stored: see `stored_names`.
    """
    parameters = {name.rpartition(".")[0] for name, m in matrices(module) if m.expert is not None}
    names, converted = stored_names(module, stored), conversions(module, stored)
    layouts: dict[str, StoredExperts] = {}
    for parameter in parameters:
        if parameter in names:
            layouts[parameter] = StoredExperts(((names[parameter],),), whole=True)
        elif parameter in converted:
            shape = tuple(module.get_parameter(parameter).shape)
            experts = _layout(converted[parameter], stored, shape)
            if experts is not None:
                layouts[parameter] = experts
    return layouts


def _layout(
    conversion: Conversion, stored: Mapping[str, Stored], shape: tuple[int, ...]
) -> StoredExperts | None:
    """The layout behind a conversion to a parameter of this shape; None if it is another one."""
    steps = [(type(op).__name__, vars(op)) for op in conversion.converter.operations]
    patterns = [p for p in conversion.converter.source_patterns if p in conversion.sources]
    stacks = [conversion.sources[pattern] for pattern in patterns]
    if steps == [("ErnieFuseAndSplitTextVisionExperts", {"stack_dim": 0, "concat_dim": 1})]:
        # the experts for texts come first, then as many for pictures
        start = conversion.target * shape[0]
        stacks = [stack[start : start + shape[0]] for stack in stacks]
        steps = [("MergeModulelist", {"dim": 0}), ("Concatenate", {"dim": 1})]
    merged = steps[:1] == [("MergeModulelist", {"dim": 0})]
    rest = steps[1:] if merged else steps
    if rest and rest[0][0] == "Concatenate" and rest[0][1]["dim"] == 1:
        rest = rest[1:]
    elif len(stacks) > 1:
        return None
    turned = len(rest) == 1 and rest[0][0] == "Transpose"
    if len(rest) > turned or (turned and {rest[0][1]["dim0"], rest[0][1]["dim1"]} != {1, 2}):
        return None
    if any(len(stack) != (shape[0] if merged else 1) for stack in stacks):
        return None
    if turned and rest[0][1]["check_dims"]:  # it transposes where the shapes differ alone
        turned = stored[stacks[0][0]].shape != shape
    return StoredExperts(tuple(map(tuple, stacks)), whole=not merged, transposed=turned)


def _parameters(
    module: nn.Module, stored: Iterable[str]
) -> dict[str, tuple[str, tuple[Any, str] | None]]:
    """The parameter that each stored tensor belongs to, by the tensor's name, in loading's order.

    Also the converter that makes it and its source pattern; None where it is stored as it is.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:  # before 5.0
        return {name: (own, None) for name, own in _before_5(module, list(stored)).items()}
    return _since_5(module, get_model_conversion_mapping(module), list(stored))


def _before_5(module: Any, stored: list[str]) -> dict[str, str]:
    own, prefix = set(module.state_dict()), module.base_model_prefix
    mapping = getattr(module, "_checkpoint_conversion_mapping", None)
    names: dict[str, str] = module._get_key_renaming_mapping(stored, mapping)
    for name, parameter in names.items():
        if parameter not in own and f"{prefix}.{parameter}" in own:
            names[name] = f"{prefix}.{parameter}"
    return names


def _since_5(
    module: Any, mapping: list[Any], stored: list[str]
) -> dict[str, tuple[str, tuple[Any, str] | None]]:
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    by_pattern = {p: converter for converter in converters for p in converter.source_patterns}
    own, prefix = module.state_dict(), module.base_model_prefix
    names: dict[str, tuple[str, tuple[Any, str] | None]] = {}
    for name in sorted(stored, key=dot_natural_key):
        parameter, pattern = rename_source_key(name, renamings, converters, prefix, own)
        if parameter not in own and name in own:
            parameter, pattern = rename_source_key(name, [], [], prefix, own)
        names[name] = parameter, None if pattern is None else (by_pattern[pattern], pattern)
    return names
