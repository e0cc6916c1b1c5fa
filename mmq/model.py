"""A model and its components: which linear layers a bit width applies to."""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from mmq import registry
from mmq.contracts import ComponentSpec, ModelFamily, architecture_of
from mmq.errors import InputError
from mmq.kept import Kept, kept_modules, unread_blocks
from mmq.loaded import LoadedModel as LoadedModel
from mmq.parts import Part, block_group

log = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer inside a component's transformer block."""

    name: str  # path from the model's root
    block: int
    layer_type: str  # attn or ff
    module: nn.Linear

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        return self.module.out_features, self.module.in_features


@dataclass(frozen=True, slots=True)
class Component:
    """A component: its name, its number of blocks and every linear layer in them."""

    name: str
    blocks: int
    layers: tuple[Layer, ...]
    paths: tuple[str, ...] = ()  # of its lists of blocks

    @property
    def weights(self) -> int:
        """Number of weights that a bit width applies to."""
        return sum(layer.module.weight.numel() for layer in self.layers)

    def part(self, layer: Layer) -> Part:
        """The finest part of the model that a layer of this component is in."""
        return self.name, block_group(layer.block, self.blocks), layer.layer_type


def _resolve(root: nn.Module, spec: ComponentSpec) -> tuple[str, nn.Module]:
    for path in spec.paths:
        try:
            return path, root.get_submodule(path)
        except AttributeError:
            continue
    node: nn.Module = root
    walked: list[str] = []
    for part in spec.paths[0].split("."):  # walk as far as the first candidate goes
        if not hasattr(node, part):
            break
        node, walked = getattr(node, part), [*walked, part]
    children = ", ".join(name for name, _ in node.named_children()) or "none"
    raise InputError(
        f"Component {spec.name!r}: none of {', '.join(spec.paths)} exists in "
        f"{type(root).__name__}. Children of {'.'.join(walked) or 'the model'}: {children}."
    )


def find_components(root: nn.Module, family: ModelFamily) -> dict[str, Component]:
    """The components of a model (real or on the meta device), in the family's order."""
    components: dict[str, Component] = {}
    for spec in family.component_specs(root):
        path, blocks = _resolve(root, spec)
        if not isinstance(blocks, nn.ModuleList):
            raise InputError(f"Component {spec.name!r}: {path} is no list of blocks")
        before = components.get(spec.name, Component(spec.name, 0, ()))
        layers = tuple(_block_layers(path, blocks, spec, before.blocks))
        if not layers:
            raise InputError(f"Component {spec.name!r}: no linear layer in the blocks of {path}")
        components[spec.name] = Component(
            spec.name, before.blocks + len(blocks), before.layers + layers, (*before.paths, path)
        )
    return components


def _block_layers(
    path: str, blocks: nn.ModuleList, spec: ComponentSpec, first: int
) -> Iterator[Layer]:
    for index, block in enumerate(blocks):
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear):
                is_attention = any(marker in name for marker in spec.attention)
                layer_type = "attn" if is_attention else "ff"
                yield Layer(f"{path}.{index}.{name}", first + index, layer_type, module)


def _bundled(name: str) -> str | None:
    for checkpoint in registry.installed("checkpoint"):
        if checkpoint.name == name:
            return str(registry.load("checkpoint", name)())
    return None


def locate(name: str, allow_pickle: bool = False) -> str:
    """Folder of a bundled model or a local one, or the hub name itself; InputError for neither."""
    bundled = _bundled(name)
    if bundled:
        return bundled
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"model: the folder {name} has no config.json")
        if not any(path.glob("*.safetensors")) and not (allow_pickle and any(path.glob("*.bin"))):
            raise InputError(
                f"model: the folder {name} has no .safetensors file, and pickled weights are not "
                f"loaded; convert them with save_pretrained(..., safe_serialization=True), or "
                f"give --allow-pickle if you trust where they come from"
            )
        return name
    looks_like_a_path = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_like_a_path:
        names = ", ".join(c.name for c in registry.installed("checkpoint"))
        raise InputError(
            f"Unknown model {name!r}: no such folder, and no bundled model (there is: {names}) "
            f"or hub name (like Salesforce/blip2-opt-2.7b)."
        )
    return name


def read_config(source: str) -> Any:
    """The transformers configuration of a folder, a hub name or a config.json."""
    from transformers import AutoConfig

    path = Path(source)
    try:
        if path.is_file():
            return AutoConfig.for_model(**json.loads(path.read_text()))
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(
            f"Model {source!r}: its configuration cannot be read ({reason}). Give a bundled "
            f"model, a folder with a config.json, or a hub name that this machine can reach."
        ) from error


def read_protocol(source: str, task: str) -> dict[str, Any]:
    """How a checkpoint wants to be asked on a task, where that differs from its family's protocol.

    A checkpoint's folder may hold an mmq.json: {"protocol": {"retrieval": {"k": 16}}}. Its values
    stand in for evaluator options that are not set.
    """
    path = Path(source) / "mmq.json"
    if not path.is_file():
        return {}
    try:
        protocol: dict[str, Any] = json.loads(path.read_text())["protocol"].get(task, {})
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f'model: {path} should look like {{"protocol": {{"vqa": {{"num_beams": 1}}}}}}'
        ) from error
    return protocol


def family_of(config: Any) -> ModelFamily:
    """The installed family for a configuration, the general ones last; InputError for none."""
    families: list[ModelFamily] = []
    unusable: list[str] = []
    for plugin in registry.installed("model family"):
        try:
            families.append(registry.load_class("model family", plugin.name, ModelFamily)())
        except InputError as error:  # a broken plugin must not stop the others
            unusable.append(str(error))
    for family in sorted(families, key=lambda family: family.general):
        if family.serves(config):
            return family
    names = {name for family in families for name in family.architectures if name[0].isupper()}
    raise InputError(
        " ".join(
            [
                f"No model family for {architecture_of(config)}.",
                f"Supported architectures: {', '.join(sorted(names))}.",
                *unusable,
            ]
        )
    )


def load_weights(
    architecture: Any, source: str, dtype: Any, device: str, allow_pickle: bool = False
) -> Any:
    """A transformers model with all of its weights, from safetensors unless pickles are allowed.

    Every floating parameter has the dtype: what a checkpoint was saved in, and what a version of
    transformers keeps in float32, does not count.

    InputError for a checkpoint that lacks weights or holds some of another shape: transformers
    would fill them with random numbers and say so in a warning only.
    """
    model, found = architecture.from_pretrained(
        source,
        torch_dtype=dtype,
        use_safetensors=None if allow_pickle else True,
        weights_only=True,  # a pickle may hold tensors, never code
        trust_remote_code=False,  # unsaid, transformers would ask on the terminal
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    for key, problem in (("missing_keys", "lacks"), ("mismatched_keys", "has another shape for")):
        names = sorted(str(entry) for entry in found.get(key) or ())
        if names:
            raise InputError(
                f"Model {source}: its checkpoint {problem} {len(names)} weights of "
                f"{architecture.__name__}, such as {', '.join(names[:3])}"
            )
    for parameter in model.parameters():  # buffers stay: rotary frequencies need float32
        if parameter.is_floating_point() and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
    return model.to(device)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A model without weights: enough to know its components, shapes and size."""

    family: ModelFamily
    components: dict[str, Component]
    parameters: int
    kept: tuple[Kept, ...]  # what stays at 16 bits
    unread_blocks: int  # last blocks of the vision tower whose output nothing reads


def skeleton(source: str) -> Skeleton:
    """Components and number of parameters from a configuration alone, in under a second."""
    config = read_config(source)
    family = family_of(config)
    level = logging.getLogger("transformers").level
    logging.getLogger("transformers").setLevel(logging.ERROR)  # meta-device init is chatty
    try:
        with torch.device("meta"):
            module = family.skeleton(config)
    finally:
        logging.getLogger("transformers").setLevel(level)
    components = find_components(module, family)
    return Skeleton(
        family=family,
        components=components,
        parameters=count_parameters(module),
        kept=kept_modules(module, components),
        unread_blocks=unread_blocks(config),
    )


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_model(
    name: str,
    dtype: str = "float32",
    device: str = "cpu",
    known_fingerprint: str | None = None,
    allow_pickle: bool = False,
) -> LoadedModel:
    """A model from a bundled name, a local folder or a hub name, in eval mode.

    `known_fingerprint` saves hashing all weights again.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r} is not one of {sorted(DTYPES)}")
    source = locate(name, allow_pickle)
    config = read_config(source)
    family = family_of(config)
    try:
        module, processor = family.load(source, DTYPES[dtype], device, allow_pickle)
    except InputError:
        raise
    except (OSError, SafetensorError, UnpicklingError) as error:  # missing or damaged files
        raise InputError(f"Model {name!r} cannot be loaded: {error}") from error
    except ValueError as error:  # transformers refuses: it would need the checkpoint's own code
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"Model {name!r} cannot be loaded: {reason}") from error
    module.eval().requires_grad_(False)
    return LoadedModel(
        module=module,
        processor=processor,
        family=family,
        source=name,
        fingerprint=known_fingerprint or fingerprint(source, config, dtype),
        device=device,
        components=find_components(module, family),
    )


def fingerprint(source: str, config: Any, dtype: str) -> str:
    """A hash of the weights and settings: the hub's commit, or the folder's contents."""
    path = Path(source)
    sha = hashlib.sha256(dtype.encode())
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".json", ".safetensors", ".bin"))
        for file in files:
            sha.update(file.name.encode())
            with file.open("rb") as stream:
                sha.update(hashlib.file_digest(stream, "sha256").digest())
    else:
        sha.update(f"{source}@{getattr(config, '_commit_hash', None)}".encode())
    return sha.hexdigest()[:20]
