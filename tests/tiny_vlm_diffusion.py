"""The recipe of a tiny DiffusionGemma, which denoises its answers."""

import transformers
from tiny_models import VISION
from tiny_vlms import TEXT, no_video, pictures, recipe, template, tokenizer, unchecked


@recipe("DiffusionGemmaForBlockDiffusion", video=True)
def diffusion_gemma():
    tokens = tokenizer(
        image_token="<|image|>", boi_token="<|image>", eoi_token="<image|>",
        audio_token="<|audio|>", boa_token="<|audio>", eoa_token="<audio|>",
    )  # fmt: skip
    pixels = pictures(
        "Gemma4ImageProcessor", patch_size=8, max_soft_tokens=70, pooling_kernel_size=2
    )
    audio = transformers.Gemma4AudioFeatureExtractor()
    processor = unchecked(
        transformers.Gemma4Processor, audio, pixels, tokens, no_video(),
        chat_template=template("<|image|>"), image_seq_length=70,
    )  # fmt: skip
    ids = tokens.convert_tokens_to_ids
    text = TEXT | {
        "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"],
        "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32,
    }  # fmt: skip
    vision = VISION | {
        "model_type": "gemma4_vision", "num_key_value_heads": 2, "head_dim": 16,
        "pooling_kernel_size": 2, "position_embedding_size": 64, "default_output_length": 70,
    }  # fmt: skip
    made = transformers.DiffusionGemmaConfig(
        text_config=text, vision_config=vision, image_token_id=ids("<|image|>"),
        boi_token_id=ids("<|image>"), eoi_token_id=ids("<image|>"), canvas_length=8,
    )  # fmt: skip
    made.architectures = ["DiffusionGemmaForBlockDiffusion"]
    return made, processor
