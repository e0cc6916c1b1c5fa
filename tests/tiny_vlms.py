"""Tiny random models of many architectures with their real processors, built without the hub.

    model = tiny_vlm("gemma3")        # a LoadedModel, cached for the test run
    folder = save_vlm("gemma3", tmp)  # a checkpoint's folder; `needs_torchvision` names exceptions

`names()` lists what the installed transformers has.
"""

import copy
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import transformers
from mmq_plugins.embedded.build import build_tokenizer
from torch import nn
from transformers import AutoModelForImageTextToText, ProcessorMixin
from transformers.utils import is_torchvision_available

from mmq.errors import InputError
from mmq.models.components import find_components
from mmq.models.loaded import LoadedModel
from mmq.models.skeleton import family_of

SINCE_5 = int(transformers.__version__.split(".")[0]) >= 5
TEXT = {
    "vocab_size": 640, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 512, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
}  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{{ 'IMAGE' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "</s>\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """How to build one architecture: make() returns its configuration and its processor."""

    make: object
    std: float = 0.2  # of the random weights
    video: bool = False  # its processor also reads videos: saved, it loads with torchvision alone


RECIPES: dict[str, Recipe] = {}


def recipe(needs="", torchvision=False, **settings):
    """Register a function by its name, if transformers has the class that it needs.

    torchvision: its processor cannot be built without that package.
    """
    here = hasattr(transformers, needs or "ProcessorMixin")
    here = here and (not torchvision or is_torchvision_available())

    def register(make):
        if here:
            RECIPES[make.__name__] = Recipe(make, **settings)
        return make

    return register


def names(loadable=False):
    """The architectures that can be built here. loadable: from a folder, without torchvision."""
    import tiny_vlm_decoders  # noqa: F401  (they register themselves)
    import tiny_vlm_diffusion  # noqa: F401
    import tiny_vlm_encoders  # noqa: F401
    import tiny_vlm_qwen  # noqa: F401

    without = not is_torchvision_available()
    return [name for name, each in RECIPES.items() if not (loadable and each.video and without)]


@cache
def _trained():
    return build_tokenizer(scenes=60)


def tokenizer(*special, kind="", **named):
    """The embedded models' tokenizer with more special tokens, and none around a text.

    named: special tokens with a name, such as image_token="<image>". kind: the class that
    processors of transformers 4 insist on; the tokenizer behind it stays the same.
    """
    from tokenizers.processors import ByteLevel

    made = copy.deepcopy(_trained())
    made.add_special_tokens({"additional_special_tokens": [*special, *named.values()]})
    made.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    backend = made.backend_tokenizer
    if kind == "BertTokenizerFast" and not SINCE_5:  # it cannot be loaded without its normalizer
        from tokenizers.normalizers import BertNormalizer

        backend.normalizer = BertNormalizer(False, False, False, False)  # which changes nothing
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, **made.special_tokens_map, padding_side="left",
        clean_up_tokenization_spaces=False, **({"extra_special_tokens": named} if named else {}),
    )  # fmt: skip
    if kind and not SINCE_5:
        made.__class__ = type(kind, (getattr(transformers, kind),), {"__init__": None})
        made._add_bos_token = made._add_eos_token = False
    assert len(made) <= TEXT["vocab_size"]
    return made


def pictures(name, **settings):
    """An image processor on Pillow, whatever this version of transformers calls it."""
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return kind(**settings)


def template(image, system=True):
    """A chat template with an image token."""
    return TEMPLATE.replace("IMAGE", image)


def without_video(name, image_processor, tokens, **settings):
    """A processor; without its part for videos where torchvision is missing."""
    if is_torchvision_available():
        part = name.replace("Processor", "VideoProcessor").replace("2_5_VL", "2VL")
        return getattr(transformers, name)(
            image_processor, tokens, getattr(transformers, part)(), **settings
        )
    return unchecked(getattr(transformers, name), image_processor, tokens, no_video(), **settings)


def no_video():
    """A processor of videos that reads none."""
    from transformers.video_processing_utils import BaseVideoProcessor

    class NoVideo(BaseVideoProcessor):
        def __init__(self):
            self.merge_size = 2

    return NoVideo()


def unchecked(kind, *parts, **settings):
    """A processor that accepts parts of any class."""
    checked = ProcessorMixin.check_argument_for_proper_class
    ProcessorMixin.check_argument_for_proper_class = lambda *args: None
    try:
        return kind(*parts, **settings)
    finally:
        ProcessorMixin.check_argument_for_proper_class = checked


def config(name, **settings):
    """A configuration of transformers."""
    made = getattr(transformers, f"{name}Config")(**settings)
    made.architectures = [f"{name}ForConditionalGeneration"]
    return made


def build(name):
    """A module of random weights with its processor."""
    names()
    each = RECIPES[name]
    made, processor = each.make()
    torch.manual_seed(0)
    kind = getattr(transformers, made.architectures[0], AutoModelForImageTextToText)
    module = kind(made) if kind is not AutoModelForImageTextToText else kind.from_config(made)
    for key, parameter in module.named_parameters():
        if parameter.dim() > 1:  # as initialized, they would only repeat the last token
            nn.init.normal_(parameter, std=each.std)
        elif "gate" in key:  # mllama's start at zero: the picture would not count
            nn.init.constant_(parameter, 0.7)
    return module.eval().requires_grad_(False), processor


@cache
def tiny_vlm(name):
    """A loaded model; do not change it, all tests share it."""
    module, processor = build(name)
    family = family_of(module.config)
    processor.tokenizer.padding_side = family.tokenization["padding_side"]
    try:
        components = find_components(module, family)
    except InputError:  # it can be asked all the same
        components = {}
    return LoadedModel(module, processor, family, name, f"tiny-{name}", "cpu", components)


def save_vlm(name, folder):
    """A folder with a tiny model and its processor."""
    module, processor = build(name)
    processor.save_pretrained(folder)
    module.save_pretrained(folder, safe_serialization=True)
    path = Path(folder) / "config.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"architectures": module.config.architectures}))
    return str(folder)
