"""Tiny models of the general family: configurations, processors, random weights."""

import json

import torch
from mmq_plugins.embedded.build import build_tokenizer
from mmq_plugins.models.generic import Generic
from torch import nn

from mmq.models.loading import load_model, read_config

TEXT = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 512, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
ROPE = {"type": "mrope", "mrope_section": [2, 3, 3]}
PERCEIVER = {
    "hidden_size": 64, "resampler_n_latents": 4, "resampler_depth": 2, "resampler_n_heads": 4,
    "resampler_head_dim": 16, "num_key_value_heads": 2,
}  # fmt: skip
# configuration; linears a block and blocks of every component, counted by hand
TINY = {
    "qwen2_vl": (
        {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "text_config": {**TEXT, "rope_scaling": ROPE},
            "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2},
        },
        {"vit": (4, 2), "llm": (7, 3)},
    ),
    "smolvlm": (
        {
            "architectures": ["SmolVLMForConditionalGeneration"],
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": VISION,
            "pad_token_id": 1,
            "scale_factor": 2,
        },
        {"vit": (6, 2), "llm": (7, 3)},
    ),
    "idefics3": (
        {
            "architectures": ["Idefics3ForConditionalGeneration"],
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": VISION,
            "pad_token_id": 1,
            "scale_factor": 2,
        },
        {"vit": (6, 2), "llm": (7, 3)},
    ),
    "paligemma": (
        {
            "architectures": ["PaliGemmaForConditionalGeneration"],
            "text_config": {**TEXT, "model_type": "gemma"},
            "vision_config": {**VISION, "model_type": "siglip_vision_model"},
            "projection_dim": 64,
            "image_token_index": 4,
        },
        {"vit": (6, 2), "llm": (7, 3)},
    ),
    "idefics2": (
        {
            "architectures": ["Idefics2ForConditionalGeneration"],
            "text_config": {**TEXT, "model_type": "mistral"},
            "vision_config": VISION,
            "perceiver_config": PERCEIVER,
        },
        {"vit": (6, 2), "connector": (7, 2), "llm": (7, 3)},
    ),
}


def tiny_config(model_type, folder):
    """A file with the configuration of a tiny model."""
    path = folder / f"{model_type}.json"
    path.write_text(json.dumps({"model_type": model_type, **TINY[model_type][0]}))
    return str(path)


TEMPLATE = (
    "{% for message in messages %}User: {% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def idefics3_processor():
    from transformers import Idefics3ImageProcessor, Idefics3Processor

    tokenizer = build_tokenizer(scenes=200)
    extra = ["<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
    tokenizer.add_special_tokens({"additional_special_tokens": extra})
    pictures = Idefics3ImageProcessor(
        do_image_splitting=False,
        size={"longest_edge": 32},
        max_image_size={"longest_edge": 32},
    )
    return Idefics3Processor(pictures, tokenizer, image_seq_len=4, chat_template=TEMPLATE)


def paligemma_processor():
    from transformers import GemmaTokenizerFast, PaliGemmaProcessor, SiglipImageProcessor

    plain = build_tokenizer(scenes=200)
    tokenizer = GemmaTokenizerFast(
        tokenizer_object=plain.backend_tokenizer, **plain.special_tokens_map
    )
    pictures = SiglipImageProcessor(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    return PaliGemmaProcessor(pictures, tokenizer)


PROCESSORS = {"idefics3": idefics3_processor, "paligemma": paligemma_processor}


def random_module(source, std=0.2):
    """The architecture of a configuration with weights that make each layer matter."""
    torch.manual_seed(0)
    config = read_config(source)
    config.image_token_id = config.image_token_index = 4
    root = Generic().skeleton(config)
    for parameter in root.parameters():  # as drawn, they would only repeat the last token
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=std)
    return root


def save_tiny(model_type, folder, std=0.2):
    """A folder with a tiny model of random weights and a real processor."""
    PROCESSORS[model_type]().save_pretrained(folder)
    root = random_module(tiny_config(model_type, folder), std)
    root.save_pretrained(folder, safe_serialization=True)
    return str(folder)


def load_tiny(model_type, folder, std=0.2):
    """The same, loaded."""
    return load_model(save_tiny(model_type, folder, std))
