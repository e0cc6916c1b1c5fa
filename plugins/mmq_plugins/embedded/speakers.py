"""How the embedded generation models read a picture and texts about it, for training."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import (
    Blip2ForConditionalGeneration,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from mmq_plugins.embedded import build, build_llava
from mmq_plugins.embedded.scene_relations import ask_relations
from mmq_plugins.embedded.scene_text import ask, captions
from mmq_plugins.embedded.scenes import Scene

CAPTION_WEIGHT = 0.25  # a caption has many tokens: less weight for each


@dataclass(frozen=True, slots=True)
class Said:
    """A text behind a picture: what is given, what is to be said, how much a token counts."""

    prompt: str
    target: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Speaker:
    """A language model with its projection, and the layout of its texts."""

    tokenizer: PreTrainedTokenizerFast
    prompt: str  # with {} for the question
    caption_prompt: str
    prefix: tuple[int, ...]  # tokens in front of the picture
    image_tokens: int
    opening: tuple[int, ...]  # tokens that begin every text behind the picture
    modules: list[nn.Module]  # what learns
    embed: nn.Module
    project: Callable[[torch.Tensor], torch.Tensor]
    decode: Callable[..., torch.Tensor]  # embeddings, mask and positions to hidden states
    head: nn.Module

    def question(self, text: str, answer: str) -> Said:
        """A question in this model's prompt."""
        return Said(self.prompt.format(text), " " + answer)

    def texts(
        self, scene: Scene, rng: random.Random, captioned: bool, questions: int, relations: int
    ) -> list[Said]:
        """What is said of a scene in one training step."""
        said = []
        if captioned:
            caption = captions(scene, rng, 1)[0]
            if self.caption_prompt:
                caption = " " + caption
            said.append(Said(self.caption_prompt, caption, CAPTION_WEIGHT))
        for _ in range(questions):
            asked = ask(scene, rng)
            said.append(self.question(asked.text, asked.answer))
        related = ask_relations(scene, rng, relations) if relations else []
        return said + [self.question(q.text, q.answer) for q in related]


def _hidden(
    decoder: nn.Module, embeddings: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    states: torch.Tensor = decoder(
        inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    return states


def blip2_speaker(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> Speaker:
    """OPT behind 16 query tokens."""
    return Speaker(
        tokenizer=tokenizer,
        prompt=build.PROMPT,
        caption_prompt="",
        prefix=(),
        image_tokens=build.QUERY_TOKENS,
        opening=(build.BOS,),
        modules=[model.language_projection, model.language_model],
        embed=model.get_input_embeddings(),
        project=model.language_projection,
        decode=partial(_hidden, model.language_model.model.decoder),
        head=model.language_model.lm_head,
    )


def llava_speaker(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> Speaker:
    """Llama behind 16 patches."""
    opening = tokenizer(build_llava.OPENING, add_special_tokens=False)["input_ids"]
    return Speaker(
        tokenizer=tokenizer,
        prompt="\n{}" + build_llava.INSTRUCTION,
        caption_prompt=build_llava.DESCRIPTION,
        prefix=(build_llava.BOS, *opening),
        image_tokens=build_llava.PATCHES,
        opening=(),
        modules=[model.model.multi_modal_projector, model.model.language_model, model.lm_head],
        embed=model.get_input_embeddings(),
        project=model.model.multi_modal_projector,
        decode=partial(_hidden, model.model.language_model),
        head=model.lm_head,
    )
