"""Recipes of tiny models with a text encoder, cross-attention or no picture tokens."""

import transformers
from tiny_models import VISION
from tiny_vlms import TEXT, config, pictures, recipe, template, tokenizer

SQUARE = {"size": {"height": 32, "width": 32}}
IMAGE = "<image>"
T5 = {
    "model_type": "t5", "vocab_size": 640, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2,
    "num_decoder_layers": 2, "num_heads": 4, "pad_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1, "feed_forward_proj": "gated-gelu",
}  # fmt: skip
OPT = {
    "model_type": "opt", "vocab_size": 640, "hidden_size": 64, "ffn_dim": 96, "dropout": 0.0,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256,
    "word_embed_proj_dim": 64, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
}  # fmt: skip
QFORMER = {
    "vocab_size": 640, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "encoder_hidden_size": 32, "pad_token_id": 1,
}  # fmt: skip
BERT = {
    "vocab_size": 640, "hidden_size": 64, "encoder_hidden_size": 32, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "sep_token_id": 2,
}  # fmt: skip


def _ending(tokens, start="<s>", end="</s>"):
    """The tokenizer with an end token after every text, as BERT's and T5's."""
    from tokenizers.processors import TemplateProcessing

    pieces = f"{start} $A {end}".strip()
    special = [(t, tokens.convert_tokens_to_ids(t)) for t in (start, end) if t]
    tokens.backend_tokenizer.post_processor = TemplateProcessing(
        single=pieces, special_tokens=special
    )
    return tokens


def _blip2(text):
    processor = transformers.Blip2Processor(
        pictures("BlipImageProcessor", **SQUARE),
        tokenizer() if text is OPT else _ending(tokenizer(), ""),
        num_query_tokens=4,
    )
    return config(
        "Blip2", vision_config=VISION, qformer_config=QFORMER, text_config=text,
        num_query_tokens=4, image_token_index=4, image_text_hidden_size=32,
    ), processor  # fmt: skip


@recipe()
def blip2_opt():
    return _blip2(OPT)


@recipe()
def blip2_t5():
    return _blip2(T5)


def _instructblip(text):
    tokens = tokenizer() if text is not T5 else _ending(tokenizer(), "")
    processor = transformers.InstructBlipProcessor(
        pictures("BlipImageProcessor", **SQUARE), tokens, _ending(tokenizer()), num_query_tokens=4
    )
    return config(
        "InstructBlip", vision_config=VISION, qformer_config=QFORMER, text_config=text,
        num_query_tokens=4, image_token_index=4,
    ), processor  # fmt: skip


@recipe()
def instructblip_t5():
    return _instructblip(T5)


@recipe()
def instructblip_llama():
    return _instructblip(TEXT | {"model_type": "llama"})


@recipe()
def blip():
    tokens = _ending(tokenizer(kind="BertTokenizerFast"))
    processor = transformers.BlipProcessor(pictures("BlipImageProcessor", **SQUARE), tokens)
    return config("Blip", vision_config=VISION, text_config=BERT, projection_dim=32), processor


@recipe("GitForCausalLM")
def git():
    tokens = _ending(tokenizer())
    pixels = pictures(
        "CLIPImageProcessor", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    configuration = transformers.GitConfig(
        **{**BERT, "num_hidden_layers": 3}, vision_config=VISION
    )
    configuration.architectures = ["GitForCausalLM"]
    return configuration, transformers.GitProcessor(pixels, tokens)


@recipe("Florence2ForConditionalGeneration")
def florence2():
    tokens = _ending(tokenizer(image_token=IMAGE))
    pixels = pictures("CLIPImageProcessor", size={"height": 64, "width": 64}, do_center_crop=False)
    pixels.image_seq_length = 5
    vision = {
        "depths": [1, 1], "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1],
        "patch_prenorm": [False, True], "embed_dim": [16, 32], "num_heads": [2, 2],
        "num_groups": [2, 2], "window_size": 4, "projection_dim": 64, "drop_path_rate": 0.0,
    }  # fmt: skip
    text = {
        "model_type": "bart", "vocab_size": 640, "d_model": 64, "encoder_layers": 2,
        "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "pad_token_id": 1, "bos_token_id": 0,
        "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
        "max_position_embeddings": 256, "dropout": 0.0,
    }  # fmt: skip
    pixels.image_seq_length = 65
    processor = transformers.Florence2Processor(pixels, tokens)
    return config("Florence2", vision_config=vision, text_config=text, image_token_id=4), processor


@recipe()
def kosmos2():
    tokens = _ending(tokenizer())
    processor = transformers.Kosmos2Processor(
        pictures("CLIPImageProcessor", size={"shortest_edge": 32},
                 crop_size={"height": 32, "width": 32}),
        tokens, num_patch_index_tokens=4,
    )  # fmt: skip
    text = {
        "vocab_size": 640, "embed_dim": 64, "layers": 2, "ffn_dim": 96, "attention_heads": 4,
        "max_position_embeddings": 256, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
        "dropout": 0.0, "attention_dropout": 0.0,
    }  # fmt: skip
    return config(
        "Kosmos2", text_config=text, vision_config=VISION, latent_query_num=64
    ), processor


@recipe()
def pix2struct():
    tokens = _ending(tokenizer(kind="T5TokenizerFast"), "")
    pixels = pictures(
        "Pix2StructImageProcessor", max_patches=16, patch_size={"height": 16, "width": 16}
    )
    text = {
        "vocab_size": 640, "hidden_size": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2,
        "num_heads": 4, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
        "dropout_rate": 0.0,
    }  # fmt: skip
    vision = {
        "hidden_size": 64, "patch_embed_hidden_size": 768, "d_kv": 16, "d_ff": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "dropout_rate": 0.0, "seq_len": 128,
    }  # fmt: skip
    configuration = config("Pix2Struct", text_config=text, vision_config=vision)
    return configuration, transformers.Pix2StructProcessor(pixels, tokens)


@recipe()
def donut():
    tokens = _ending(tokenizer("<s_docvqa>", "<s_question>", "</s_question>", "<s_answer>"))
    pixels = pictures("DonutImageProcessor", size={"height": 64, "width": 64})
    vision = transformers.DonutSwinConfig(
        image_size=64, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    text = transformers.MBartConfig(
        vocab_size=640, d_model=32, decoder_layers=2, decoder_attention_heads=2,
        decoder_ffn_dim=48, max_position_embeddings=128, pad_token_id=1, bos_token_id=0,
        eos_token_id=2, is_decoder=True, add_cross_attention=True, dropout=0.0,
    )  # fmt: skip
    configuration = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        vision, text
    )
    configuration.decoder_start_token_id, configuration.pad_token_id = 0, 1
    configuration.architectures = ["VisionEncoderDecoderModel"]
    return configuration, transformers.DonutProcessor(pixels, tokens)


@recipe("FuyuImageProcessorPil", torchvision=True)  # its Pillow backend fails
def fuyu():
    tokens = tokenizer("|SPEAKER|", "|NEWLINE|", "<0x04>")
    pixels = pictures(
        "FuyuImageProcessor", size={"height": 60, "width": 60},
        patch_size={"height": 30, "width": 30},
    )  # fmt: skip
    text = {**TEXT, "model_type": "persimmon"}
    configuration = transformers.FuyuConfig(
        **{k: v for k, v in TEXT.items() if k not in ("head_dim", "num_key_value_heads")},
        text_config=text, image_size=60, patch_size=30,
        image_token_id=tokens.convert_tokens_to_ids("|SPEAKER|"),
    )  # fmt: skip
    configuration.architectures = ["FuyuForCausalLM"]
    return configuration, transformers.FuyuProcessor(pixels, tokens)


@recipe("JanusImageProcessorPil")
def janus():
    tokens = tokenizer(
        kind="LlamaTokenizerFast",
        image_token="<image_placeholder>",
        boi_token="<begin_of_image>",
        eoi_token="<end_of_image>",
    )
    pixels = pictures("JanusImageProcessor", **SQUARE, min_size=8)
    processor = transformers.JanusProcessor(
        pixels, tokens, chat_template=template("<image_placeholder>\n"), num_image_tokens=16
    )
    vision = VISION | {"projection_dim": 64, "num_image_tokens": 16}
    quantizer = {
        "embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "base_channels": 32,
        "channel_multiplier": [1], "num_res_blocks": 1, "num_patches": 4, "projection_dim": 64,
        "image_token_embed_dim": 64, "num_hidden_layers": 1,
    }  # fmt: skip
    return config(
        "Janus", text_config=TEXT | {"model_type": "llama"}, vision_config=vision,
        vq_config=quantizer, image_token_id=tokens.convert_tokens_to_ids("<image_placeholder>"),
    ), processor  # fmt: skip
