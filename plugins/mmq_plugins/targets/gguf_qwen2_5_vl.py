"""Qwen2.5-VL as GGUF: its vision tower with window attention, a merger, and Qwen2."""

from dataclasses import replace
from typing import Any

import numpy as np

from mmq.errors import InputError
from mmq_plugins.targets.gguf_layout import MMPROJ, Layout, Place, Source, place_all
from mmq_plugins.targets.gguf_text import layout_of, text_keys
from mmq_plugins.targets.gguf_vision import add_pixel_limits, per_frame, vision_keys

NAMES = {
    "vit.patch_embed.proj": "v.patch_embd",
    "vit.blocks.{}.norm1": "v.blk.{}.ln1",
    "vit.blocks.{}.norm2": "v.blk.{}.ln2",
    "vit.blocks.{}.attn.qkv": "v.blk.{}.attn_qkv",
    "vit.blocks.{}.attn.proj": "v.blk.{}.attn_out",
    "vit.blocks.{}.mlp.gate_proj": "v.blk.{}.ffn_gate",
    "vit.blocks.{}.mlp.up_proj": "v.blk.{}.ffn_up",
    "vit.blocks.{}.mlp.down_proj": "v.blk.{}.ffn_down",
    "vit.merger.ln_q": "v.post_ln",
    "vit.merger.mlp.0": "mm.0",
    "vit.merger.mlp.2": "mm.2",
}
IMAGE_SIZE = 560  # what llama.cpp plans memory for; pictures have their own


def qwen2_5_vl(source: Source) -> Layout:
    """The layout of a `Qwen2_5_VLForConditionalGeneration`."""
    vision = source.config.vision_config
    places = place_all(source.checkpoint, MMPROJ, NAMES, ("vit.",))
    split = (part for place in places for part in _split(place))
    return layout_of(source, split, _keys(source, vision), text_keys(source))


def _split(place: Place) -> list[Place]:
    """q, k and v as tensors of their own, and one convolution per frame."""
    if ".attn_qkv." in place.name:
        rows = np.arange(place.shape[0]).reshape(3, -1)
        return [
            replace(
                place,
                name=place.name.replace("qkv", part),
                shape=(len(index), *place.shape[1:]),
                rows=index,
            )
            for part, index in zip("qkv", rows, strict=True)
        ]
    return per_frame(place)


def _keys(source: Source, vision: Any) -> Any:
    keys = vision_keys(
        source, vision, "qwen2.5vl_merger", source.config.get_text_config().hidden_size
    )
    keys.add_vision_image_size(IMAGE_SIZE)
    keys.add_vision_block_count(vision.depth)
    keys.add_vision_head_count(vision.num_heads)
    keys.add_vision_attention_layernorm_eps(1e-6)
    keys.add_vision_spatial_merge_size(vision.spatial_merge_size)
    full = list(vision.fullatt_block_indexes)
    pattern = full[0] + 1
    if full != list(range(full[0], vision.depth, pattern)):
        raise InputError(
            f"llama.cpp has full attention in every n-th block, but this model has it in {full} "
            f"(fullatt_block_indexes)"
        )
    keys.add_vision_n_wa_pattern(pattern)
    keys.add_vision_window_size(vision.window_size)
    add_pixel_limits(keys, source.processor.image_processor)
    return keys
