"""Qwen3-VL as GGUF: a vision tower whose middle blocks reach into the first ones of Qwen3."""

from typing import Any

from mmq_plugins.targets.gguf_layout import MMPROJ, Layout, Source, place_all
from mmq_plugins.targets.gguf_text import layout_of, text_keys
from mmq_plugins.targets.gguf_vision import add_pixel_limits, per_frame, vision_keys

NAMES = {
    "vit.patch_embed.proj": "v.patch_embd",
    "vit.pos_embed": "v.position_embd",
    "vit.blocks.{}.norm1": "v.blk.{}.ln1",
    "vit.blocks.{}.norm2": "v.blk.{}.ln2",
    "vit.blocks.{}.attn.qkv": "v.blk.{}.attn_qkv",
    "vit.blocks.{}.attn.proj": "v.blk.{}.attn_out",
    "vit.blocks.{}.mlp.linear_fc1": "v.blk.{}.ffn_up",
    "vit.blocks.{}.mlp.linear_fc2": "v.blk.{}.ffn_down",
    "vit.merger.norm": "v.post_ln",
    "vit.merger.linear_fc1": "mm.0",
    "vit.merger.linear_fc2": "mm.2",
}
MERGER = {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}


def qwen3_vl(source: Source) -> Layout:
    """The layout of a `Qwen3VLForConditionalGeneration`."""
    blocks = list(source.config.vision_config.deepstack_visual_indexes)
    names = NAMES | {
        f"vit.deepstack_merger_list.{number}.{layer}": f"v.deepstack.{block}.{name}"
        for number, block in enumerate(blocks)
        for layer, name in MERGER.items()
    }
    places = place_all(source.checkpoint, MMPROJ, names, ("vit.",))
    text = text_keys(source)
    text.add_num_deepstack_layers(len(blocks))
    frames = (part for place in places for part in per_frame(place))
    return layout_of(source, frames, _keys(source, blocks), text)


def _keys(source: Source, blocks: list[int]) -> Any:
    vision = source.config.vision_config
    text = source.config.get_text_config()
    keys = vision_keys(source, vision, "qwen3vl_merger", text.hidden_size)
    side = round(vision.num_position_embeddings**0.5)
    keys.add_vision_image_size(side * vision.patch_size)
    keys.add_vision_block_count(vision.depth)
    keys.add_vision_head_count(vision.num_heads)
    keys.add_vision_attention_layernorm_eps(1e-6)  # written into the model's code
    keys.add_vision_spatial_merge_size(vision.spatial_merge_size)
    keys.add_vision_is_deepstack_layers([block in blocks for block in range(vision.depth)])
    add_pixel_limits(keys, source.processor.image_processor)
    return keys
