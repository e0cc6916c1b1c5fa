"""The vision tower's part of an mmproj file: names of CLIP-like towers, and metadata."""

from dataclasses import replace
from typing import Any

from mmq.errors import InputError
from mmq_plugins.targets.gguf_file import gguf_package
from mmq_plugins.targets.gguf_layout import Place, Source

EMBEDDINGS = {
    "vit.embeddings.class_embedding": "v.class_embd",
    "vit.embeddings.patch_embedding": "v.patch_embd",
    "vit.embeddings.position_embedding": "v.position_embd",
    "vit.pre_layrnorm": "v.pre_ln",
}
BLOCK = {
    "vit.layers.{}.self_attn.q_proj": "v.blk.{}.attn_q",
    "vit.layers.{}.self_attn.k_proj": "v.blk.{}.attn_k",
    "vit.layers.{}.self_attn.v_proj": "v.blk.{}.attn_v",
    "vit.layers.{}.self_attn.out_proj": "v.blk.{}.attn_out",
    "vit.layers.{}.mlp.fc1": "v.blk.{}.ffn_up",
    "vit.layers.{}.mlp.fc2": "v.blk.{}.ffn_down",
    "vit.layers.{}.layer_norm1": "v.blk.{}.ln1",
    "vit.layers.{}.layer_norm2": "v.blk.{}.ln2",
}
FRAMES = 2  # frames that llama.cpp reads at once
ACTIVATIONS = {
    "quick_gelu": None,  # llama.cpp's own, where none is named
    "gelu": "clip.use_gelu",
    "gelu_pytorch_tanh": "clip.use_gelu",
    "gelu_new": "clip.use_gelu",
    "silu": "clip.use_silu",
}


def vision_keys(source: Source, vision: Any, projector: str, width: int) -> Any:
    """A GGUFWriter with an mmproj file's metadata. width: of the language model."""
    keys = gguf_package().GGUFWriter(None, "clip")
    keys.add_type("mmproj")
    keys.add_name(source.folder.resolve().name)
    keys.add_clip_has_vision_encoder(True)
    keys.add_clip_projector_type(projector)
    keys.add_vision_projection_dim(width)
    keys.add_vision_patch_size(vision.patch_size)
    keys.add_vision_embedding_length(vision.hidden_size)
    keys.add_vision_feed_forward_length(vision.intermediate_size)
    if (size := getattr(vision, "image_size", None)) is not None:
        keys.add_vision_image_size(size)
        keys.add_vision_block_count(vision.num_hidden_layers)
        keys.add_vision_head_count(vision.num_attention_heads)
        keys.add_vision_attention_layernorm_eps(vision.layer_norm_eps)
    if vision.hidden_act not in ACTIVATIONS:
        raise InputError(f"llama.cpp has no vision tower with {vision.hidden_act!r} activations")
    if (activation := ACTIVATIONS[vision.hidden_act]) is not None:
        keys.add_bool(activation, True)
    pictures = source.processor.image_processor
    keys.add_vision_image_mean([float(value) for value in pictures.image_mean])
    keys.add_vision_image_std([float(value) for value in pictures.image_std])
    return keys


def per_frame(place: Place) -> list[Place]:
    """One convolution per frame where the first one is over time; else the place itself."""
    if place.name != "v.patch_embd.weight" or len(place.shape) != 5:
        return [place]
    if place.shape[2] != FRAMES:
        raise InputError(
            f"llama.cpp reads {FRAMES} frames at once, but this model reads {place.shape[2]} "
            f"(temporal_patch_size)"
        )
    shape = (*place.shape[:2], *place.shape[3:])
    return [
        replace(place, name=f"v.patch_embd.weight{suffix}", shape=shape, frame=frame)
        for frame, suffix in enumerate(("", ".1"))
    ]


def add_pixel_limits(keys: Any, pictures: Any) -> None:
    """Add the least and most pixels that pictures are resized to, where the processor has them."""
    size = getattr(pictures, "size", None) or {}
    for name, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        if (pixels := getattr(pictures, name, None) or size.get(edge)) is not None:
            getattr(keys, f"add_vision_{name}")(int(pixels))
