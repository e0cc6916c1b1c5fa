"""The language model's part of a GGUF file: Llama, Qwen2 and Qwen3 in their variants."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mmq.errors import InputError
from mmq_plugins.targets.gguf_file import gguf_package
from mmq_plugins.targets.gguf_layout import (
    MMPROJ,
    MODEL,
    Layout,
    Place,
    Source,
    half_rotated,
    place_all,
)
from mmq_plugins.targets.gguf_tokenizer import add_tokenizer

# by the text configuration's model type
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen2_vl_text": "qwen2vl",
    "qwen2_5_vl_text": "qwen2vl",
    "qwen3": "qwen3",
    "qwen3_vl_text": "qwen3vl",
}
NAMES = {
    "llm.embed_tokens": "token_embd",
    "llm.norm": "output_norm",
    "lm_head": "output",
    "llm.layers.{}.self_attn.q_proj": "blk.{}.attn_q",
    "llm.layers.{}.self_attn.k_proj": "blk.{}.attn_k",
    "llm.layers.{}.self_attn.v_proj": "blk.{}.attn_v",
    "llm.layers.{}.self_attn.o_proj": "blk.{}.attn_output",
    "llm.layers.{}.self_attn.q_norm": "blk.{}.attn_q_norm",
    "llm.layers.{}.self_attn.k_norm": "blk.{}.attn_k_norm",
    "llm.layers.{}.mlp.gate_proj": "blk.{}.ffn_gate",
    "llm.layers.{}.mlp.up_proj": "blk.{}.ffn_up",
    "llm.layers.{}.mlp.down_proj": "blk.{}.ffn_down",
    "llm.layers.{}.input_layernorm": "blk.{}.attn_norm",
    "llm.layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
}


def text_places(source: Source) -> list[Place]:
    """Places of the language model's tensors, rows of Llama's q and k in ggml's order."""
    text = source.config.get_text_config()
    names = dict(NAMES)
    if getattr(text, "tie_word_embeddings", False):
        names["lm_head"] = ""  # llama.cpp reads the embeddings instead
    places = place_all(source.checkpoint, MODEL, names, ("llm.", "lm_head."))
    if architecture(text) != "llama":
        return places
    heads = {"attn_q": text.num_attention_heads, "attn_k": text.num_key_value_heads}
    for number, place in enumerate(places):
        if (count := heads.get(place.name.split(".")[-2])) is not None:
            places[number] = replace(place, rows=half_rotated(place.shape[0], count))
    return places


def architecture(text: Any) -> str:
    """llama.cpp's name of a text configuration's architecture; InputError for one without."""
    kind = text.model_type
    if kind not in ARCHITECTURES:
        raise InputError(
            f"the target gguf cannot write a language model of type {kind!r} (supported: "
            f"{', '.join(sorted(ARCHITECTURES))}); give --from model.gguf,mmproj.gguf with 16-bit "
            f"files of this model, if llama.cpp has converted it"
        )
    for name, idle in (("mlp_bias", False), ("attention_bias", False), ("hidden_act", "silu")):
        if ARCHITECTURES[kind] == "llama" and getattr(text, name, idle) != idle:
            raise InputError(
                f"the target gguf cannot write a Llama with {name}={getattr(text, name)}"
            )
    return ARCHITECTURES[kind]


def text_keys(source: Source) -> Any:
    """A GGUFWriter with the language model's metadata, tokenizer and chat template."""
    text = source.config.get_text_config()
    keys = gguf_package().GGUFWriter(None, architecture(text))
    keys.add_name(source.folder.resolve().name)
    keys.add_context_length(text.max_position_embeddings)
    keys.add_embedding_length(text.hidden_size)
    keys.add_block_count(text.num_hidden_layers)
    keys.add_feed_forward_length(text.intermediate_size)
    keys.add_head_count(text.num_attention_heads)
    keys.add_head_count_kv(text.num_key_value_heads)
    keys.add_layer_norm_rms_eps(text.rms_norm_eps)
    keys.add_vocab_size(text.vocab_size)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    keys.add_key_length(width)
    keys.add_value_length(width)
    keys.add_rope_dimension_count(width)
    _add_rope(keys, text)
    add_tokenizer(keys, source.processor.tokenizer, text.vocab_size, source.chat)
    return keys


def _add_rope(keys: Any, text: Any) -> None:
    """How positions rotate; InputError for a scaling of them that is not written."""
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise InputError(
            f"the target gguf cannot write {kind!r} scaling of rotary positions; give --from "
            f"model.gguf,mmproj.gguf with 16-bit files of this model"
        )
    base = rope.get("rope_theta", getattr(text, "rope_theta", None))
    keys.add_rope_freq_base(float(base or 10000.0))
    if sections := rope.get("mrope_section"):
        keys.add_rope_dimension_sections([*sections, *[0] * (4 - len(sections))])


def layout_of(
    source: Source, places: Iterable[Place], vision: Any, text: Any, notes: tuple[str, ...] = ()
) -> Layout:
    """A model's layout. places: of the mmproj file; vision, text: writers with the metadata."""
    return Layout(
        places=(*text_places(source), *places),
        keys={MODEL: text, MMPROJ: vision},
        read=source.checkpoint.read,
        bits=source.checkpoint.bits,
        stored=source.checkpoint.keys,
        notes=notes,
    )
