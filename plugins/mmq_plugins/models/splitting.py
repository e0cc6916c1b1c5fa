"""A model's lists of transformer blocks, and the component of each."""

import re
from collections.abc import Iterator

from torch import nn

from mmq.contracts import ComponentSpec
from mmq.errors import InputError

# words of a path, first match wins: a resampler inside the vision tower is a connector
WORDS = {
    "connector": {"connector", "resampler", "perceiver", "qformer", "projector", "abstractor"},
    "vit": {"vision", "visual", "image"},
    "other": {"audio", "speech", "video", "protein", "generation", "dit", "vqmodel"},
    "llm": {"language", "text", "lm", "llm", "decoder"},
}
ATTENTION = ("attn", "attention", "Attention")
# classes that mix tokens
MIXES = re.compile("attention|mixer|mamba|deltanet|shortconv", re.IGNORECASE)


def block_lists(root: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """The outermost lists of transformer blocks, that is of modules that mix tokens.

    A list of stages that are lists of blocks themselves counts as several lists.
    """
    prefixes: tuple[str, ...] = ()
    for path, module in root.named_modules():
        if not isinstance(module, nn.ModuleList) or path.startswith(prefixes):
            continue
        if any(isinstance(child, nn.ModuleList) for child in module):
            continue
        if _mixes_tokens(module):
            prefixes = (*prefixes, f"{path}.")
            yield path, module


def _mixes_tokens(blocks: nn.ModuleList) -> bool:
    """Whether there are linear layers in attention, by their names or their module's class."""
    linears = {name for name, m in blocks.named_modules() if isinstance(m, nn.Linear)}
    if any(marker in name for marker in ATTENTION for name in linears):
        return True
    mixers = [n for n, m in blocks.named_modules() if n and MIXES.search(type(m).__name__)]
    return any(name.startswith(f"{mixer}.") for mixer in mixers for name in linears)


def component_of(path: str) -> str:
    """The component that a list of blocks belongs to, by its path; "" if no word matches."""
    words = {word.removesuffix("s") for word in re.split(r"[._]", path)}
    return next((name for name, marks in WORDS.items() if words & marks), "")


def split(root: nn.Module) -> tuple[ComponentSpec, ...]:
    """The lists of blocks of each component; InputError without a language model.

    A list that no word describes belongs to the language model; beside a decoder, an encoder is
    the vision tower if there is no other. A tower without blocks stays at 16 bits.
    """
    paths: dict[str, list[str]] = {"vit": [], "connector": [], "llm": [], "": [], "other": []}
    for path, _ in block_lists(root):
        paths[component_of(path)].append(path)
    if paths["llm"] and not paths["vit"]:
        paths["vit"] = [p for p in paths[""] if "encoder" in re.split(r"[._]", p)]
    paths["llm"] += [path for path in paths[""] if path not in paths["vit"]]
    if not paths["llm"]:
        lists = ", ".join(path for path, _ in block_lists(root)) or "none"
        raise InputError(
            f"{type(root).__name__} cannot be split: it has no transformer blocks of a language "
            f"model. Its lists of blocks: {lists}. Write a model family plugin that names its "
            f"components."
        )
    return tuple(
        ComponentSpec(name, (path,), ATTENTION)
        for name in ("vit", "connector", "llm")
        for path in paths[name]
    )
