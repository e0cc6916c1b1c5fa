"""The embedded LLaVA before training: real classes, tiny widths."""

from typing import Any

import torch
from tokenizers import AddedToken
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from mmq_plugins.embedded.build import (
    EOS,
    IMAGE,
    PAD,
    PIXEL_MEAN,
    PIXEL_STD,
    VOCAB_SIZE,
    build_tokenizer,
    sincos_2d,
)
from mmq_plugins.embedded.scenes import CELL, IMAGE_SIZE

BOS = 0
OPENING = "USER: "
INSTRUCTION = "\nAnswer the question using a single word or phrase. ASSISTANT:"
DESCRIPTION = "\nDescribe the image. ASSISTANT:"
PATCH_SIZE = CELL  # one patch per cell: with 64 patches, the language model stayed on a plateau
PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2


def build_llava_tokenizer(scenes: int = 4000) -> PreTrainedTokenizerFast:
    """The scenes' BPE tokenizer with LLaVA's constant instruction as a single token."""
    tokenizer = build_tokenizer(scenes, prompt="{}", bos="<s>", relations=4)
    tokenizer.add_tokens(
        [AddedToken(text, normalized=False) for text in (OPENING, INSTRUCTION, DESCRIPTION)]
    )
    return tokenizer


def build_llava_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """The processor that evaluation uses: 64 x 64 pixels are 16 image tokens."""
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=PIXEL_MEAN,
        image_std=PIXEL_STD,
    )
    return LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )


def llava_config() -> LlavaConfig:
    """6 CLIP ViT blocks, the last of which LLaVA does not use, and 4 Llama blocks."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=128,
    )
    language = LlamaConfig(
        vocab_size=VOCAB_SIZE + 3,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        tie_word_embeddings=False,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=language,
        image_token_index=IMAGE,
        image_seq_length=PATCHES,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def clip_of(model: LlavaForConditionalGeneration) -> Any:
    """The CLIP ViT without the wrapper of transformers 4."""
    tower = model.model.vision_tower
    return getattr(tower, "vision_model", tower)


@torch.no_grad()
def build_llava(seed: int) -> LlavaForConditionalGeneration:
    """An untrained model whose patches have 2-D positions."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(llava_config())
    embedding = clip_of(model).embeddings.position_embedding
    embedding.weight[1:] = sincos_2d(IMAGE_SIZE // PATCH_SIZE, embedding.weight.shape[1])
    return model
