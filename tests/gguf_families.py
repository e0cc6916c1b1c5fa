"""Tiny random models of families that llama.cpp runs, with processors that need no torchvision."""

import transformers
from gguf_models import LLAVA, TEXT, plain_tokenizer, randomize
from transformers import BatchFeature

SINCE_5 = int(transformers.__version__.split(".")[0]) >= 5


def _pictures(name):
    """An image processor on Pillow, whatever this version of transformers calls it."""
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


IDEFICS3_TEMPLATE = (
    "<|im_start|>{% for message in messages %}User:{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
TILES = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]


def save_smolvlm(folder):
    """A SmolVLM; its own processor needs torchvision for videos, so it has Idefics3's."""
    save_idefics3(folder, "SmolVLM")


def save_idefics3(folder, kind="Idefics3"):
    """An Idefics3 that cuts pictures of 64 pixels into four and adds the whole."""
    from transformers import Idefics3Processor

    tokenizer = plain_tokenizer(
        *("<|im_start|>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"),
        *("\n\n", *TILES),
    )
    tokenizer.eos_token = "<end_of_utterance>"
    pictures = _pictures("Idefics3ImageProcessor")(
        do_image_splitting=True,
        size={"longest_edge": 64},
        max_image_size={"longest_edge": 32},
    )
    Idefics3Processor(
        pictures, tokenizer, image_seq_len=4, chat_template=IDEFICS3_TEMPLATE
    ).save_pretrained(folder)
    start, end, image = tokenizer.convert_tokens_to_ids(
        ["<|im_start|>", "<end_of_utterance>", "<image>"]
    )
    config = getattr(transformers, f"{kind}Config")(
        text_config=TEXT | {"model_type": "llama", "bos_token_id": start, "eos_token_id": end},
        vision_config={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
        },
        image_token_id=image,
        scale_factor=2,
        pad_token_id=1,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    randomize(model, 0.05).save_pretrained(folder)


QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_TOKENS = (
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
)  # fmt: skip


class QwenProcessor:
    """What `Qwen2_5_VLProcessor` does with pictures; that one needs torchvision for videos."""

    chat_template = QWEN_TEMPLATE

    def __init__(self, patch=14):
        self.tokenizer = plain_tokenizer(*QWEN_TOKENS)
        self.tokenizer.bos_token = None
        self.tokenizer.eos_token = "<|im_end|>"
        self.tokenizer.padding_side = "left"
        self.image_processor = _pictures("Qwen2VLImageProcessor")(
            patch_size=patch,
            size={"shortest_edge": 4 * patch**2, "longest_edge": 256 * patch**2},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )

    def token(self, name):
        return self.tokenizer.convert_tokens_to_ids(name)

    def apply_chat_template(self, messages, **options):
        return self.tokenizer.apply_chat_template(
            messages, **{"chat_template": self.chat_template} | options
        )

    def batch_decode(self, *rest, **options):
        return self.tokenizer.batch_decode(*rest, **options)

    def __call__(self, images, text, padding=True, return_tensors="pt", **options):
        flat = [image for of_text in images for image in of_text]
        pixels = self.image_processor(images=flat, return_tensors="pt")
        counts = iter(int(grid.prod()) // 4 for grid in pixels["image_grid_thw"])
        expanded = []
        for prompt in text:
            first, *rest = prompt.split("<|image_pad|>")
            expanded.append(first + "".join("<|image_pad|>" * next(counts) + r for r in rest))
        result = {**self.tokenizer(expanded, padding=True, return_tensors="pt"), **pixels}
        if SINCE_5:
            result["mm_token_type_ids"] = (
                result["input_ids"] == self.token("<|image_pad|>")
            ).int()
        return BatchFeature(result)


def save_qwen2_5_vl(folder):
    """A Qwen2.5-VL with windows of two by two patches; its processor is `QwenProcessor`."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    processor = QwenProcessor()
    processor.tokenizer.save_pretrained(folder)
    config = Qwen2_5_VLConfig(
        text_config=TEXT
        | {
            "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
            "bos_token_id": None,
            "eos_token_id": processor.token("<|im_end|>"),
        },
        vision_config={
            "depth": 4, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2,
            "patch_size": 14, "window_size": 56, "out_hidden_size": 256,
            "fullatt_block_indexes": [1, 3],
        },
        image_token_id=processor.token("<|image_pad|>"),
        vision_start_token_id=processor.token("<|vision_start|>"),
        vision_end_token_id=processor.token("<|vision_end|>"),
    )  # fmt: skip
    randomize(Qwen2_5_VLForConditionalGeneration(config), 0.05).save_pretrained(folder)


def save_qwen3_vl(folder):
    """A Qwen3-VL whose second and third vision block reach into the language model."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    processor = QwenProcessor(patch=16)
    processor.tokenizer.save_pretrained(folder)
    config = Qwen3VLConfig(
        text_config=TEXT
        | {
            "head_dim": 64,
            "num_hidden_layers": 3,  # llama.cpp needs one that no vision block reaches
            "rope_parameters": {
                "rope_type": "default", "mrope_section": [12, 10, 10], "rope_theta": 5e6,
            },
            "eos_token_id": processor.token("<|im_end|>"),
        },
        vision_config={
            "depth": 4, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2,
            "patch_size": 16, "out_hidden_size": 256, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1, 2],
        },
        image_token_id=processor.token("<|image_pad|>"),
        vision_start_token_id=processor.token("<|vision_start|>"),
        vision_end_token_id=processor.token("<|vision_end|>"),
    )  # fmt: skip
    randomize(Qwen3VLForConditionalGeneration(config), 0.05).save_pretrained(folder)


def save_siglip_llava(folder):
    """The embedded LLaVA with a random SigLIP tower, which has no class token."""
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        SiglipVisionConfig,
    )

    trained = LlavaForConditionalGeneration.from_pretrained(LLAVA)
    vision = SiglipVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        image_size=64, patch_size=16, vision_use_head=False,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=trained.config.text_config.to_dict(),
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
        image_token_index=trained.config.image_token_index,
        image_seq_length=16,
    )
    model = randomize(LlavaForConditionalGeneration(config), 0.06)
    state = {
        name: tensor.half()
        for name, tensor in trained.state_dict().items()
        if "vision_tower" not in name
    }
    model.load_state_dict(state, strict=False)
    model.save_pretrained(folder)
    processor = LlavaProcessor.from_pretrained(LLAVA)
    processor.vision_feature_select_strategy = "full"
    processor.num_additional_image_tokens = 0
    processor.save_pretrained(folder)
