"""Folders of models with something wrong in them, made from bundled ones."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mmq.models.loading import locate
from mmq.models.skeleton import check_weights, skeleton

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def copied(folder, name="embedded-retrieval"):
    """A copy of a bundled model; its weights are a link."""
    source = Path(locate(name))
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(WEIGHTS, "README.md"))
    for path in folder.iterdir():
        path.chmod(0o644)
    (folder / WEIGHTS).symlink_to(source / WEIGHTS)
    return folder


def edit(path, change):
    """Change the facts in a JSON file."""
    facts = json.loads(path.read_text())
    changed = change(facts)
    path.write_text(json.dumps(facts if changed is None else changed))


def edit_weights(folder, change):
    """Change the tensors in a folder's single file of weights."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    (folder / WEIGHTS).unlink()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def shard(folder, places=("model-1.safetensors", "model-2.safetensors")):
    """Spread the weights over two files that an index names."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    halves = (names[::2], names[1::2])
    for place, half in zip(places, halves, strict=True):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensors[name] for name in half}, folder / place, {"format": "pt"})
    (folder / WEIGHTS).unlink()
    facts = {n: place for place, half in zip(places, halves, strict=True) for n in half}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": facts}))


def examine(folder, allow_unread=False):
    """All checks of a model that precede reading data and loading weights."""
    source = locate(str(folder))
    outline = skeleton(source)
    check_weights(source, allow_unread)
    return outline


def as_lora(tensors):
    """Add an adapter's tensors for the first layer."""
    name = next(name for name in tensors if name.endswith("query.weight"))
    stem = name.removesuffix(".weight")
    tensors[f"{stem}.lora_A.default.weight"] = torch.ones(2, tensors[name].shape[1])
    tensors[f"{stem}.lora_B.default.weight"] = torch.ones(tensors[name].shape[0], 2)
