"""Trains the embedded models from a seed: first to see, then to speak or to match.

The first stage trains the vision encoder (and the Q-Former) under linear probes that name what
stands in each cell; the probes are dropped. The later stages freeze what sees, cache its outputs
and train what reads them. All run in bfloat16 autocast on one thread, so that a seed means one
result on one kind of processor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from mmq_plugins.embedded import build, build_llava, build_retrieval
from mmq_plugins.embedded.speakers import blip2_speaker, llava_speaker
from mmq_plugins.embedded.steps import Checkpoint, MetricSink, TrainConfig
from mmq_plugins.embedded.train_language import Lesson, train_language
from mmq_plugins.embedded.train_retrieval import train_retrieval
from mmq_plugins.embedded.train_vision import (
    Seeing,
    blip2_seeing,
    encode_images,
    llava_seeing,
    render_pixels,
    train_vision,
    vit_outputs,
)

FIRST_UNSEEN = 1_000_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one of the embedded models is made."""

    name: str
    about: str
    config: TrainConfig
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    processor: Callable[[PreTrainedTokenizerFast], Any]
    train: Callable[[PreTrainedTokenizerFast, TrainConfig, Checkpoint, MetricSink], Any]
    protocol: dict[str, dict[str, Any]]  # options that differ from the family's protocol


def _see(
    model: nn.Module,
    seeing: Seeing,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
    later: tuple[str, ...],
) -> Any:
    """The first stage, unless it or a later one is on disk; returns the training pictures."""
    pixels = render_pixels(list(range(config.images)), "train")
    for stage in (*later, "vision-done"):
        if state := checkpoint.load(stage):
            model.load_state_dict(state["model"])
            break
    else:
        train_vision(model, seeing, pixels, config, checkpoint, sink)
        checkpoint.save("vision-done", config.vision_steps, model=model.state_dict())
    for module in seeing.modules:
        module.requires_grad_(False)
    return pixels


def _speak(
    model: Any,
    seeing: Seeing,
    speaker: Any,
    lessons: list[Lesson],
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> None:
    """The vision stage and every lesson that is not done."""
    names = tuple(lesson.name for lesson in lessons)
    pixels = _see(model, seeing, config, checkpoint, sink, names)
    features = encode_images(seeing.encode, pixels)
    numbers = list(range(FIRST_UNSEEN, FIRST_UNSEEN + config.probe_images))
    unseen = encode_images(seeing.encode, render_pixels(numbers, "test"))
    reached = next((k for k, name in enumerate(names) if checkpoint.load(name)), 0)
    for lesson in lessons[reached:]:
        train_language(model, speaker, lesson, features, unseen, config, checkpoint, sink)


def train_blip2(
    tokenizer: PreTrainedTokenizerFast,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> Any:
    """ViT and Q-Former see; OPT learns captions and questions, then relations too."""
    model = build.build_blip2(config.seed).train()
    lessons = [
        Lesson("language", config.language_steps, config.language_lr, True, 12, 0),
        Lesson("relations", config.relation_steps, config.relation_lr, True, 6, 6),
    ]
    speaker = blip2_speaker(model, tokenizer)
    _speak(model, blip2_seeing(model), speaker, lessons, config, checkpoint, sink)
    return model


def train_llava(
    tokenizer: PreTrainedTokenizerFast,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> Any:
    """The CLIP ViT sees; Llama learns captions and questions of both kinds."""
    model = build_llava.build_llava(config.seed).train()
    lessons = [Lesson("language", config.language_steps, config.language_lr, True, 6, 6)]
    speaker = llava_speaker(model, tokenizer)
    _speak(model, llava_seeing(model), speaker, lessons, config, checkpoint, sink)
    return model


def train_itm(
    tokenizer: PreTrainedTokenizerFast,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> Any:
    """ViT and Q-Former see as the other BLIP-2's do; the Q-Former then reads and matches."""
    seer = build.build_blip2(config.seed).train()
    if checkpoint.load("retrieval"):
        pixels = render_pixels(list(range(config.images)), "train")
    else:
        pixels = _see(seer, blip2_seeing(seer), config, checkpoint, sink, ())
    model = build_retrieval.build_retrieval(config.seed, seer).train()
    if state := checkpoint.load("retrieval"):
        model.load_state_dict(state["model"])
    model.vision_model.requires_grad_(False)
    vision = encode_images(vit_outputs(model), pixels)
    train_retrieval(model, tokenizer, vision, config, checkpoint, sink)
    return model


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "embedded-blip2",
            "A tiny `Blip2ForConditionalGeneration` (6 ViT, 4 Q-Former and 4 OPT blocks) that "
            "captions pictures and answers questions about them.",
            TrainConfig(),
            build.build_tokenizer,
            build.build_processor,
            train_blip2,
            {},
        ),
        Recipe(
            "embedded-llava",
            "A tiny `LlavaForConditionalGeneration` (6 CLIP ViT blocks, the last of which LLaVA "
            "never reads, and 4 Llama blocks) that answers questions about pictures.",
            TrainConfig(
                images=40_000,
                vision_steps=1_500,
                language_steps=3_500,
                language_batch=24,
                relation_steps=0,
            ),
            build_llava.build_llava_tokenizer,
            build_llava.build_llava_processor,
            train_llava,
            {},
        ),
        Recipe(
            "embedded-retrieval",
            "A tiny `Blip2ForImageTextRetrieval` (6 ViT and 4 Q-Former blocks) that finds the "
            "caption of a picture and the picture of a caption.",
            TrainConfig(language_steps=3_000, language_batch=64, relation_steps=0),
            build_retrieval.build_retrieval_tokenizer,
            build_retrieval.build_retrieval_processor,
            train_itm,
            # a larger share of its pool than 128 of 1,000 pictures and 5,000 captions
            {"retrieval": {"k": 16}},
        ),
    )
}


def train(
    recipe: Recipe, config: TrainConfig, folder: Path, sink: MetricSink
) -> tuple[Any, PreTrainedTokenizerFast]:
    """A trained model with its tokenizer; `folder` keeps what a killed call goes on from."""
    torch.set_num_threads(1)
    tokenizer = recipe.tokenizer()
    return recipe.train(tokenizer, config, Checkpoint(folder, config), sink), tokenizer
