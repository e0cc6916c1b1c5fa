"""Recipes of tiny decoder-only models: picture tokens in a language model's prompt."""

from tiny_models import VISION
from tiny_vlms import (
    SINCE_5,
    TEXT,
    config,
    pictures,
    recipe,
    template,
    tokenizer,
    without_video,
)

CLIP = VISION | {"model_type": "clip_vision_model"}
SIGLIP = VISION | {"model_type": "siglip_vision_model"}
PIXTRAL = VISION | {"model_type": "pixtral", "head_dim": 16, "image_size": 128}
LLAMA = TEXT | {"model_type": "llama"}
SQUARE = {"size": {"height": 32, "width": 32}}
CROPPED = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
IMAGE = "<image>"


def _llava_processor(name, image_processor, strategy="default", extra=1, **settings):
    import transformers

    return getattr(transformers, name)(
        image_processor, tokenizer(image_token=IMAGE), patch_size=8,
        vision_feature_select_strategy=strategy, num_additional_image_tokens=extra,
        chat_template=template(IMAGE), **settings,
    )  # fmt: skip


@recipe("LlavaForConditionalGeneration")
def llava():
    processor = _llava_processor("LlavaProcessor", pictures("CLIPImageProcessor", **CROPPED))
    return config("Llava", text_config=LLAMA, vision_config=CLIP, image_token_index=4), processor


@recipe("LlavaForConditionalGeneration")
def llava_siglip():
    pixels = pictures("SiglipImageProcessor", **SQUARE)
    processor = _llava_processor("LlavaProcessor", pixels, "full", 0)
    return config(
        "Llava", text_config=TEXT | {"model_type": "qwen2"}, vision_config=SIGLIP,
        image_token_index=4, vision_feature_select_strategy="full", vision_feature_layer=-1,
    ), processor  # fmt: skip


def _pixtral_processor():
    import transformers

    tokens = tokenizer("[IMG_BREAK]", "[IMG_END]", image_token=IMAGE)
    pixels = pictures("PixtralImageProcessor", size={"longest_edge": 64}, patch_size=8)
    return transformers.PixtralProcessor(
        pixels, tokens, patch_size=8, image_token=IMAGE, chat_template=template(IMAGE)
    )


@recipe("PixtralProcessor", torchvision=SINCE_5)
def llava_pixtral():
    return config(
        "Llava", text_config=TEXT | {"model_type": "mistral"}, vision_config=PIXTRAL,
        image_token_index=4, vision_feature_select_strategy="full", vision_feature_layer=-1,
    ), _pixtral_processor()  # fmt: skip


@recipe("Mistral3ForConditionalGeneration", torchvision=SINCE_5)
def mistral3():
    processor = _pixtral_processor()
    processor.patch_size = 8
    processor.spatial_merge_size = 2
    processor.image_processor.patch_size = {"height": 16, "width": 16}
    return config(
        "Mistral3", text_config=TEXT | {"model_type": "mistral"}, vision_config=PIXTRAL,
        image_token_index=4, vision_feature_layer=-1, spatial_merge_size=2,
    ), processor  # fmt: skip


@recipe("VipLlavaForConditionalGeneration")
def vipllava():
    processor = _llava_processor("LlavaProcessor", pictures("CLIPImageProcessor", **CROPPED))
    layers = [-1, -2]
    return config(
        "VipLlava", text_config=LLAMA, vision_config=CLIP, image_token_index=4,
        vision_feature_layers=layers,
    ), processor  # fmt: skip


GRID = [[32, 64], [64, 32], [64, 64]]


@recipe("LlavaNextForConditionalGeneration")
def llava_next():
    pixels = pictures("LlavaNextImageProcessor", image_grid_pinpoints=GRID, **CROPPED)
    processor = _llava_processor("LlavaNextProcessor", pixels)
    return config(
        "LlavaNext", text_config=LLAMA, vision_config=CLIP, image_token_index=4,
        image_grid_pinpoints=GRID,
    ), processor  # fmt: skip


@recipe("LlavaOnevisionForConditionalGeneration", video=True)
def llava_onevision():
    pixels = pictures("LlavaOnevisionImageProcessor", image_grid_pinpoints=GRID, **SQUARE)
    processor = without_video(
        "LlavaOnevisionProcessor", pixels, tokenizer(image_token=IMAGE, video_token="<video>"),
        num_image_tokens=16, vision_feature_select_strategy="full", chat_template=template(IMAGE),
    )  # fmt: skip
    video = processor.tokenizer.convert_tokens_to_ids("<video>")
    return config(
        "LlavaOnevision", text_config=TEXT | {"model_type": "qwen2"}, vision_config=SIGLIP,
        image_token_index=4, video_token_index=video,
        image_grid_pinpoints=GRID, vision_feature_layer=-1, vision_aspect_ratio="anyres_max_4",
    ), processor  # fmt: skip


def _idefics(name, split):
    import transformers

    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tokens = tokenizer(
        "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "\n\n", *tiles,
        image_token=IMAGE,
    )  # fmt: skip
    pixels = pictures(
        "Idefics3ImageProcessor", do_image_splitting=split, size={"longest_edge": 64},
        max_image_size={"longest_edge": 32},
    )  # fmt: skip
    processor = transformers.Idefics3Processor(
        pixels, tokens, image_seq_len=4, chat_template=template(IMAGE)
    )
    return config(
        name, text_config=LLAMA, vision_config=VISION, pad_token_id=1, scale_factor=2,
        image_token_id=4,
    ), processor  # fmt: skip


@recipe("Idefics3ForConditionalGeneration")
def idefics3():
    return _idefics("Idefics3", True)


@recipe("SmolVLMForConditionalGeneration")
def smolvlm():
    return _idefics("SmolVLM", False)


@recipe("Idefics2ForConditionalGeneration")
def idefics2():
    import transformers

    tokens = tokenizer(
        "<end_of_utterance>", image_token=IMAGE, image_boundary_token="<fake_token_around_image>"
    )
    pixels = pictures(
        "Idefics2ImageProcessor", size={"shortest_edge": 24, "longest_edge": 48},
        do_image_splitting=False,
    )  # fmt: skip
    processor = transformers.Idefics2Processor(
        pixels, tokens, image_seq_len=4, chat_template=template(IMAGE)
    )
    perceiver = {
        "hidden_size": 64, "resampler_n_latents": 4, "resampler_depth": 2,
        "resampler_n_heads": 4, "resampler_head_dim": 16, "num_key_value_heads": 2,
    }  # fmt: skip
    return config(
        "Idefics2", text_config=TEXT | {"model_type": "mistral"},
        vision_config=VISION | {"image_size": 48}, perceiver_config=perceiver, image_token_id=4,
    ), processor  # fmt: skip


@recipe("PaliGemmaForConditionalGeneration")
def paligemma():
    import transformers

    tokens = tokenizer(kind="GemmaTokenizerFast", image_token=IMAGE)
    pixels = pictures("SiglipImageProcessor", **SQUARE)
    pixels.image_seq_length = 16
    return config(
        "PaliGemma", text_config=TEXT | {"model_type": "gemma", "vocab_size": 2048},
        vision_config=SIGLIP, projection_dim=64, image_token_index=4,
    ), transformers.PaliGemmaProcessor(pixels, tokens)  # fmt: skip


@recipe("Gemma3ForConditionalGeneration")
def gemma3():
    import transformers

    tokens = tokenizer(image_token=IMAGE, boi_token="<start_of_image>", eoi_token="<end_of_image>")
    pixels = pictures("Gemma3ImageProcessor", **SQUARE)
    processor = transformers.Gemma3Processor(
        pixels, tokens, chat_template=template("<start_of_image>"), image_seq_length=4
    )
    boi, eoi = tokens.convert_tokens_to_ids(["<start_of_image>", "<end_of_image>"])
    return config(
        "Gemma3",
        text_config=TEXT | {"model_type": "gemma3_text", "sliding_window": 16,
                            "num_hidden_layers": 6, "query_pre_attn_scalar": 16},
        vision_config=SIGLIP, mm_tokens_per_image=4, image_token_index=4, boi_token_index=boi,
        eoi_token_index=eoi,
    ), processor  # fmt: skip


@recipe("AyaVisionForConditionalGeneration")
def aya_vision():
    import transformers

    special = [
        "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "TILE", "TILE_GLOBAL",
        *(f"TILE_{k}" for k in range(1, 5)),
    ]  # fmt: skip
    tokens = tokenizer(*special, image_token=IMAGE)
    pixels = pictures("GotOcr2ImageProcessor", crop_to_patches=True, max_patches=4, **SQUARE)
    processor = transformers.AyaVisionProcessor(
        pixels, tokens, patch_size=8, img_size=32, downsample_factor=2,
        chat_template=template(IMAGE),
    )  # fmt: skip
    return config(
        "AyaVision", text_config=TEXT | {"model_type": "cohere2", "sliding_window": 32},
        vision_config=SIGLIP, downsample_factor=2, adapter_layer_norm_eps=1e-6,
        image_token_index=tokens.convert_tokens_to_ids("<|IMG_PATCH|>"),
    ), processor  # fmt: skip


@recipe("InternVLForConditionalGeneration", video=True)
def internvl():
    tokens = tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )  # fmt: skip
    pixels = pictures("GotOcr2ImageProcessor", crop_to_patches=True, max_patches=2, **SQUARE)
    processor = without_video(
        "InternVLProcessor", pixels, tokens, image_seq_length=4,
        chat_template=template("<IMG_CONTEXT>"),
    )  # fmt: skip
    square = {"image_size": [32, 32], "patch_size": [8, 8]}
    return config(
        "InternVL", text_config=TEXT | {"model_type": "qwen2"},
        vision_config=VISION | square | {"model_type": "internvl_vision"}, downsample_ratio=0.5,
        image_token_id=tokens.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4,
    ), processor  # fmt: skip


SAM = {
    "image_size": 64, "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "mlp_dim": 48, "global_attn_indexes": [1], "window_size": 2,
}  # fmt: skip


@recipe("" if not SINCE_5 else "nothing")  # since 5 every picture has 256 tokens
def got_ocr2():
    import transformers

    tokens = tokenizer("<img>", "</img>", "<imgpad>", "<|im_start|>", "<|im_end|>")
    pixels = pictures("GotOcr2ImageProcessor", size={"height": 64, "width": 64})
    processor = transformers.GotOcr2Processor(
        pixels, tokens, chat_template=template("<img>" + "<imgpad>" * 1 + "</img>")
    )
    return config(
        "GotOcr2", text_config=TEXT | {"model_type": "qwen2"}, vision_config=SAM,
        image_token_index=tokens.convert_tokens_to_ids("<imgpad>"),
    ), processor  # fmt: skip


@recipe("AriaForConditionalGeneration")
def aria():
    import transformers

    pixels = pictures("AriaImageProcessor", max_image_size=490, min_image_size=336)
    processor = transformers.AriaProcessor(
        pixels, tokenizer(image_token=IMAGE), size_conversion={490: 4, 980: 8},
        chat_template=template(IMAGE),
    )  # fmt: skip
    text = TEXT | {"model_type": "aria_text", "moe_num_experts": 4, "moe_topk": 2,
                   "moe_num_shared_experts": 1, "intermediate_size": 32}  # fmt: skip
    return config(
        "Aria", text_config=text, image_token_index=4,
        projector_patch_to_query_dict={196: 4, 784: 8},
        vision_config=VISION | {"model_type": "idefics3_vision", "image_size": 980,
                                "patch_size": 35},
    ), processor  # fmt: skip


@recipe("MllamaForConditionalGeneration")
def mllama():
    import transformers

    tokens = tokenizer("<|image|>", "<|python_tag|>")
    pixels = pictures("MllamaImageProcessor", max_image_tiles=2, **SQUARE)
    processor = transformers.MllamaProcessor(
        pixels, tokens, chat_template="<s>" + template("<|image|>")
    )
    text = TEXT | {"num_hidden_layers": 4, "cross_attention_layers": [1, 3], "vocab_size": 632}
    if not SINCE_5:
        text["rope_scaling"] = {"rope_type": "default"}
    vision = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 2,
        "intermediate_size": 48, "image_size": 32, "patch_size": 8, "max_num_tiles": 2,
        "vision_output_dim": 64, "intermediate_layers_indices": [1],
        "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
    }  # fmt: skip
    return config(
        "Mllama", text_config=text, vision_config=vision,
        image_token_index=tokens.convert_tokens_to_ids("<|image|>"),
    ), processor  # fmt: skip
