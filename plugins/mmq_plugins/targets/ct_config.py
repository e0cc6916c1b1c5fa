"""The quantization_config of a compressed-tensors checkpoint: groups, targets, ignored layers."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmq.allocation.parts import OPTIONAL
from mmq.contracts.target import ExportSource, WeightSpec
from mmq.errors import InputError
from mmq.models.checkpoint import read_config
from mmq.models.skeleton import on_meta
from mmq_plugins.targets.ct_engines import Engine, release
from mmq_plugins.targets.ct_names import layer_patterns, list_patterns, outside_pattern

PACKED, INT8, MIXED = "pack-quantized", "int-quantized", "mixed-precision"
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("query", "key", "value"))


@dataclass(frozen=True, slots=True)
class Packing:
    """How a weight's codes are stored. group_size: 0 is one scale per row.

    widened: zero points are folded into codes with one more bit, which is exact.
    with_8_bit_inputs: codes are int8, and the engine rounds the layer's inputs to 8 bits, with one
    scale per token.
    """

    bits: int
    group_size: int
    zero_points: bool
    widened: bool
    with_8_bit_inputs: bool = False

    @classmethod
    def of(cls, spec: WeightSpec, engine: Engine) -> "Packing":
        """How an engine reads a weight that it does not refuse."""
        widened = engine.no_zero_points and not spec.symmetric
        return cls(
            bits=spec.bits + widened,
            group_size=0 if spec.per_tensor else spec.group_size,
            zero_points=not spec.symmetric and not widened,
            widened=widened,
            with_8_bit_inputs=engine.rounds_inputs(spec),
        )

    @property
    def format(self) -> str:
        """The name of its format."""
        return INT8 if self.with_8_bit_inputs else PACKED

    def __str__(self) -> str:
        kind = "asymmetric" if self.zero_points else "symmetric"
        inputs = ", inputs rounded to 8 bits" if self.with_8_bit_inputs else ""
        grouping = f"groups of {self.group_size}" if self.group_size else "one scale per row"
        return f"{self.format}, {self.bits} bits, {kind}, {grouping}{inputs}"

    def group(self, targets: Sequence[str]) -> dict[str, Any]:
        """The config group of the layers that `targets` match."""
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": not self.zero_points,
            "strategy": "group" if self.group_size else "channel",
            "group_size": self.group_size or None,
            "dynamic": False,
        }
        inputs = {
            "num_bits": 8,
            "type": "int",
            "symmetric": True,
            "strategy": "token",
            "dynamic": True,
        }
        group = {"targets": list(targets), "format": self.format, "weights": weights}
        return group | ({"input_activations": inputs} if self.with_8_bit_inputs else {})


def quantization_config(source: ExportSource, engine: Engine) -> dict[str, Any]:
    """For config.json: one group per kind of packing; every other linear layer is ignored."""
    packings = {name: Packing.of(spec, engine) for name, spec in source.specs.items()}
    if engine.fuses:
        check_fused(packings, engine.name)
    if engine.name == "transformers" and release("transformers") >= (5, 0):
        check_loadable(source)
    lists, alone = _lists(source), _outside(source)
    members: dict[Packing, list[str]] = {}
    for name, packing in packings.items():
        members.setdefault(packing, []).append(name)
    groups = {
        f"group_{number}": packing.group(_patterns(names, lists, alone))
        for number, (packing, names) in enumerate(members.items())
    }
    formats = {packing.format for packing in members}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else MIXED,
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "config_groups": groups,
        "ignore": _ignored(source, lists, alone),
    }


def _patterns(
    names: Sequence[str], lists: Mapping[str, str], outside: Mapping[str, str]
) -> list[str]:
    """Patterns of layers: in lists of blocks, and outside."""
    inside = [name for name in names if name not in outside]
    return layer_patterns(inside, lists) + [outside[name] for name in names if name in outside]


def _outside(source: ExportSource) -> dict[str, str]:
    """The patterns of linear layers that are not those of blocks, by name."""
    components = source.skeleton.components.items()
    inside = {x.name for name, c in components if name not in OPTIONAL for x in c.layers}
    folder = str(source.folder)
    module = on_meta(folder, source.skeleton.family, read_config(folder))
    return {
        name: outside_pattern(
            name, source.stored.get(f"{name}.weight", name).removesuffix(".weight")
        )
        for name, linear in module.named_modules()
        if isinstance(linear, nn.Linear) and name not in inside
    }


def _paths(source: ExportSource) -> list[str]:
    """The paths of all lists of blocks."""
    components = source.skeleton.components.items()
    return [path for name, c in components if name not in OPTIONAL for path in c.paths]


def _lists(source: ExportSource) -> dict[str, str]:
    """A pattern by the path of each list of blocks."""
    paths = _paths(source)
    stored: dict[str, str] = {}
    for parameter, name in source.stored.items():
        for path in paths:
            if parameter.startswith(f"{path}.0."):
                end = parameter.removeprefix(path)
                if name.endswith(end):
                    stored[path] = name.removesuffix(end)
    return list_patterns(paths, stored)


def _ignored(
    source: ExportSource, lists: Mapping[str, str], outside: Mapping[str, str]
) -> list[str]:
    """Patterns of all linear layers that are not quantized."""
    inside = [
        layer.name
        for component in source.skeleton.components.values()
        for layer in component.layers
        if layer.name not in source.specs and component.name not in OPTIONAL
    ]
    others = {pattern for name, pattern in outside.items() if name not in source.specs}
    return layer_patterns(inside, lists) + sorted(others)


def check_fused(packings: Mapping[str, Packing], engine: str) -> None:
    """InputError where layers that the engine joins are stored differently, or not all packed."""
    for name, packing in packings.items():
        stem, _, last = name.rpartition(".")
        for names in FUSED:
            if last not in names:
                continue
            for other in (f"{stem}.{each}" for each in names):
                if packings.get(other) != packing:
                    raise InputError(
                        f"target: {engine} joins {', '.join(names)}, but {name} is {packing}, and "
                        f"{other} is {packings.get(other, 'at 16 bits')}; quantize them alike"
                    )


def check_loadable(source: ExportSource) -> None:
    """InputError where transformers cannot load packed weights of this architecture.

    Some models (SigLIP's) initialize each linear layer's weight while they are loaded, and a
    packed layer has none. It is tried without weights.
    """
    folder, components = str(source.folder), source.skeleton.components
    for component in components.values():
        packed = [layer.name for layer in component.layers if layer.name in source.specs]
        module: Any = on_meta(folder, source.skeleton.family, read_config(folder))
        for name in packed:
            del module.get_submodule(name).weight
        try:
            for part in module.modules():
                part.__dict__.pop("_is_hf_initialized", None)
            with torch.device("meta"):
                module.initialize_weights()
        except AttributeError as error:
            raise InputError(
                f"target: transformers {version('transformers')} cannot load packed weights of "
                f"this model's {component.name} (it initializes them first: {error}). Leave "
                f"{component.name} at 16 bits, or export for another engine, e.g. with --target "
                f"compressed-tensors:vllm"
            ) from error


def read_groups(folder: Path) -> Sequence[Mapping[str, Any]]:
    """The config groups of an exported folder."""
    config = json.loads((folder / "config.json").read_bytes())
    groups: Iterable[Mapping[str, Any]] = config["quantization_config"]["config_groups"].values()
    return tuple(groups)


def group_of(name: str, groups: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The group whose targets match a layer's name, the first one as in the package."""
    for group in groups:
        if any(re.match(target.removeprefix("re:"), name) for target in group["targets"]):
            return group
    raise LookupError(f"no config group has {name}")
