"""Recipes of tiny Qwen models: pictures of any size, positions in three dimensions."""

from tiny_vlms import TEXT, config, pictures, recipe, template, tokenizer, without_video

ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
QWEN = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")


def _qwen(name, processor_name, patch=14, text=(), **vision):
    tokens = tokenizer(
        *QWEN, kind="Qwen2TokenizerFast", image_token="<|image_pad|>", video_token="<|video_pad|>"
    )
    pixels = pictures(
        "Qwen2VLImageProcessor", patch_size=patch, min_pixels=4 * patch**2,
        max_pixels=64 * patch**2,
    )  # fmt: skip
    processor = without_video(
        processor_name, pixels, tokens,
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>"),
    )  # fmt: skip
    ids = tokens.convert_tokens_to_ids
    return config(
        name, text_config=TEXT | {"rope_scaling": ROPE} | dict(text),
        vision_config={"depth": 2, "num_heads": 2, "patch_size": patch} | vision,
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
    ), processor  # fmt: skip


@recipe("Qwen2VLForConditionalGeneration", video=True)
def qwen2_vl():
    return _qwen("Qwen2VL", "Qwen2VLProcessor", embed_dim=32, hidden_size=64)


@recipe("Qwen2_5_VLForConditionalGeneration", video=True)
def qwen2_5_vl():
    return _qwen(
        "Qwen2_5_VL", "Qwen2_5_VLProcessor", hidden_size=32, intermediate_size=48,
        out_hidden_size=64, window_size=56, fullatt_block_indexes=[1],
    )  # fmt: skip


QWEN3 = {
    "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64, "depth": 3,
    "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


@recipe("Qwen3VLForConditionalGeneration", video=True)
def qwen3_vl():
    return _qwen("Qwen3VL", "Qwen3VLProcessor", 16, {"rope_parameters": ROPE}, **QWEN3)


@recipe("Qwen3VLMoeForConditionalGeneration", video=True)
def qwen3_vl_moe():
    return _qwen(
        "Qwen3VLMoe", "Qwen3VLProcessor", 16, {"rope_parameters": ROPE} | EXPERTS, **QWEN3
    )
