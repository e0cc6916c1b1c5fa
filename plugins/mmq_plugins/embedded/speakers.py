"""How the embedded generation models process a picture and texts about it, for training."""

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

CAPTION_WEIGHT = 0.25  # lower, because a caption has many tokens


@dataclass(frozen=True, slots=True)
class Example:
    """A training text for a picture: prompt, target, and weight of a token."""

    prompt: str
    target: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Speaker:
    """A language model with its projection, and the layout of its texts."""

    tokenizer: PreTrainedTokenizerFast
    prompt: str  # with {} for the question
    caption_prompt: str
    prefix: tuple[int, ...]  # tokens before the picture
    image_tokens: int
    opening: tuple[int, ...]  # first tokens of every text after the picture
    modules: list[nn.Module]  # trained modules
    embed: nn.Module
    project: Callable[[torch.Tensor], torch.Tensor]
    decode: Callable[..., torch.Tensor]  # embeddings, mask and positions to hidden states
    head: nn.Module

    def question(self, text: str, answer: str) -> Example:
        """A question in this model's prompt."""
        return Example(self.prompt.format(text), " " + answer)

    def texts(
        self, scene: Scene, rng: random.Random, captioned: bool, questions: int, relations: int
    ) -> list[Example]:
        """The texts about a scene in one training step."""
        examples = []
        if captioned:
            caption = captions(scene, rng, 1)[0]
            if self.caption_prompt:
                caption = " " + caption
            examples.append(Example(self.caption_prompt, caption, CAPTION_WEIGHT))
        for _ in range(questions):
            sample = ask(scene, rng)
            examples.append(self.question(sample.text, sample.answer))
        related = ask_relations(scene, rng, relations) if relations else []
        return examples + [self.question(q.text, q.answer) for q in related]


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
    """OPT after 16 query tokens."""
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
    """Llama after 16 patches."""
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
