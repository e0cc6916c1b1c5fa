"""The embedded retrieval model before training: ViT and Q-Former of the other BLIP-2."""

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    PreTrainedTokenizerFast,
)

from mmq_plugins.embedded.build import blip2_config, build_image_processor, build_tokenizer

BOS = 0
SHARED_WIDTH = 32  # a quarter of the Q-Former's width: real BLIP-2 has a third


def build_retrieval_tokenizer(scenes: int = 4000) -> PreTrainedTokenizerFast:
    """The scenes' BPE tokenizer; <s> starts a text, and its state represents the text."""
    tokenizer = build_tokenizer(scenes, bos="<s>")
    tokenizer.padding_side = "right"
    return tokenizer


def build_retrieval_processor(tokenizer: PreTrainedTokenizerFast) -> Blip2Processor:
    """The processor that evaluation uses: no image tokens in the text."""
    return Blip2Processor(build_image_processor(), tokenizer)


def retrieval_config() -> Blip2Config:
    """The embedded BLIP-2's ViT and Q-Former, which also encodes text."""
    generation = blip2_config()
    return Blip2Config(
        vision_config=generation.vision_config.to_dict(),
        qformer_config={**generation.qformer_config.to_dict(), "use_qformer_text_input": True},
        text_config=generation.text_config.to_dict(),
        num_query_tokens=generation.num_query_tokens,
        image_text_hidden_size=SHARED_WIDTH,
        image_token_index=None,
    )


@torch.no_grad()
def build_retrieval(
    seed: int, source: Blip2ForConditionalGeneration
) -> Blip2ForImageTextRetrieval:
    """A model with the vision weights of `source` and an untrained text part."""
    torch.manual_seed(seed)
    model = Blip2ForImageTextRetrieval(retrieval_config())
    model.vision_model.load_state_dict(source.vision_model.state_dict())
    loaded = model.qformer.load_state_dict(source.qformer.state_dict(), strict=False)
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    model.query_tokens.copy_(source.query_tokens)
    for layer in model.qformer.encoder.layer:  # texts start with the queries' feed-forwards
        layer.intermediate.load_state_dict(layer.intermediate_query.state_dict())
        layer.output.load_state_dict(layer.output_query.state_dict())
    return model
