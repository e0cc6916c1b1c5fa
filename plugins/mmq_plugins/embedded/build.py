"""The embedded BLIP-2 before training: real classes, tiny widths."""

import math
import random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    OPTConfig,
    PreTrainedTokenizerFast,
)

from mmq_plugins.embedded.scene_relations import ask_relations
from mmq_plugins.embedded.scene_text import ask, captions
from mmq_plugins.embedded.scenes import GRID, IMAGE_SIZE, make_scene

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<image>")
PAD, EOS, IMAGE = 1, 2, 4
BOS = EOS  # OPT's texts start with </s>
VOCAB_SIZE = 512
QUERY_TOKENS = GRID * GRID  # one per cell
PATCH_SIZE = 8
PROMPT = "Question: {} Short answer:"
PIXEL_MEAN, PIXEL_STD = [0.5] * 3, [0.25] * 3


def build_tokenizer(
    scenes: int = 4000, prompt: str = PROMPT, bos: str = "</s>", relations: int = 0
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the texts of the first training scenes."""
    rng, texts = random.Random(0), []
    for index in range(scenes):
        scene = make_scene(index)
        texts += captions(scene, rng)
        for _ in range(4):
            question = ask(scene, rng)
            texts.append(f"{prompt.format(question.text)} {question.answer}")
        texts += [f"{q.text} {q.answer}" for q in ask_relations(scene, rng, relations)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A $B",
        special_tokens=[(bos, SPECIAL_TOKENS.index(bos))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )


def build_image_processor() -> BlipImageProcessor:
    """64 x 64 pixels, normalized."""
    return BlipImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=PIXEL_MEAN,
        image_std=PIXEL_STD,
        do_convert_rgb=True,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Blip2Processor:
    """The processor that evaluation uses: 16 image tokens before the text."""
    return Blip2Processor(build_image_processor(), tokenizer, num_query_tokens=QUERY_TOKENS)


def blip2_config() -> Blip2Config:
    """6 ViT, 4 Q-Former and 4 OPT blocks; every width is a multiple of 128."""
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-6,
    }
    qformer = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "cross_attention_frequency": 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 64,
        "pad_token_id": PAD,
    }
    language = OPTConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        ffn_dim=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        word_embed_proj_dim=256,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        init_std=0.02,
    )
    return Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=language.to_dict(),
        num_query_tokens=QUERY_TOKENS,
        image_text_hidden_size=128,
        image_token_index=IMAGE,
    )


def build_blip2(seed: int) -> Blip2ForConditionalGeneration:
    """An untrained model whose queries and patches have 2-D positions."""
    torch.manual_seed(seed)
    model = Blip2ForConditionalGeneration(blip2_config())
    place_queries_(model)
    return model


def sincos_2d(side: int, width: int) -> torch.Tensor:
    """Sine and cosine codes of a side x side grid of positions, (side * side, width)."""
    steps = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    # a quarter to two cycles across the picture
    frequencies = 2 * math.pi * 0.25 * 2 ** torch.linspace(0, 3, width // 4)
    angles = [axis.reshape(-1, 1) * frequencies for axis in (x, y)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1)


@torch.no_grad()
def place_queries_(model: Blip2ForConditionalGeneration) -> None:
    """Give queries and patches 2-D positions and let the first cross-attention compare them.

    transformers initializes all query tokens at zero, where they stay equal, and the ViT's weights
    at 1e-10 (its initializer_range default), so both are initialized here.
    """
    width = model.query_tokens.shape[-1]
    positions = model.vision_model.embeddings.position_embedding
    positions[0, 1:] = sincos_2d(IMAGE_SIZE // PATCH_SIZE, positions.shape[-1])
    model.query_tokens.copy_(sincos_2d(GRID, width)[None])
    for layer in model.qformer.encoder.layer:
        if layer.has_cross_attention:
            attention = layer.crossattention.attention
            rotation = torch.linalg.qr(torch.randn(width, width))[0]
            attention.query.weight.copy_(rotation)
            attention.key.weight.copy_(rotation)
            attention.value.weight.normal_(0, 0.06)
            layer.crossattention.output.dense.weight.normal_(0, 0.06)
