"""LLaVA as GGUF: a CLIP or SigLIP tower, a projector of two layers, and Llama or Qwen2."""

from typing import Any

from mmq.errors import InputError
from mmq_plugins.targets.gguf_layout import MMPROJ, Layout, Source, place_all
from mmq_plugins.targets.gguf_text import layout_of, text_keys
from mmq_plugins.targets.gguf_vision import BLOCK, EMBEDDINGS, vision_keys

CLS_FAULT = (
    "llama.cpp has put LLaVA-1.5's class token after the patches since mid-2025 (its issue "
    "25814): answers differ from the scored model's even at 16 bits; score the exported model in "
    "the engine before you rely on it"
)
PADDING = (
    "llama.cpp pads pictures to squares where transformers crops them: answers about pictures "
    "that are not square differ"
)
NAMES = (
    EMBEDDINGS
    | BLOCK
    | {
        "connector.linear_1": "mm.0",
        "connector.linear_2": "mm.2",
        # unused: the features are taken before it
        "vit.post_layernorm": "",
        "vit.head.probe": "",
    }
)


def llava(source: Source) -> Layout:
    """The layout of a `LlavaForConditionalGeneration`."""
    vision = source.config.vision_config
    clip = vision.model_type == "clip_vision_model"
    _check(source.config, clip)
    keys = vision_keys(source, vision, "mlp", source.config.get_text_config().hidden_size)
    keys.add_array("clip.vision.feature_layer", _feature_layers(source.config))
    places = place_all(source.checkpoint, MMPROJ, NAMES, ("vit.", "connector."))
    notes = (CLS_FAULT, PADDING) if clip else (PADDING,)
    return layout_of(source, places, keys, text_keys(source), notes)


def _check(config: Any, clip: bool) -> None:
    """InputError for what llama.cpp's LLaVA computes otherwise."""
    kind = config.vision_config.model_type
    if kind not in ("clip_vision_model", "siglip_vision_model"):
        raise InputError(f"the target gguf cannot write a LLaVA with a {kind!r} tower")
    wanted = "default" if clip else "full"
    if config.vision_feature_select_strategy != wanted:
        raise InputError(
            f"the target gguf writes a LLaVA with a {kind} only with "
            f"vision_feature_select_strategy={wanted!r}, but this one has "
            f"{config.vision_feature_select_strategy!r}"
        )
    if not config.projector_hidden_act.startswith("gelu"):
        raise InputError(
            f"llama.cpp's LLaVA projector has GELU, but this one {config.projector_hidden_act!r}"
        )


def _feature_layers(config: Any) -> list[int]:
    """The hidden states that the projector reads, counted from the embeddings."""
    layers = config.vision_feature_layer
    layers = [layers] if isinstance(layers, int) else list(layers)
    count = config.vision_config.num_hidden_layers + 1
    states = [layer % count for layer in layers]
    if states != sorted(set(states)):
        raise InputError(
            f"llama.cpp reads vision layers in ascending order; vision_feature_layer is {layers}"
        )
    return states
