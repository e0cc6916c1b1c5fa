"""Trains the embedded models from a seed: vision first, then language or matching.

The first stage trains the vision encoder (and the Q-Former) with linear probes that predict the
content of each cell; the probes are discarded. Later stages freeze it, cache its outputs and train
the rest. All run in bfloat16 autocast on one thread, so a seed determines the result on one kind
of processor.
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
    VisionSetup,
    blip2_vision,
    encode_images,
    llava_vision,
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


def _train_vision_stage(
    model: nn.Module,
    setup: VisionSetup,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
    later: tuple[str, ...],
) -> Any:
    """Run the first stage unless it or a later one is saved; returns the training pictures."""
    pixels = render_pixels(list(range(config.images)), "train")
    for stage in (*later, "vision-done"):
        if state := checkpoint.load(stage):
            model.load_state_dict(state["model"])
            break
    else:
        train_vision(model, setup, pixels, config, checkpoint, sink)
        checkpoint.save("vision-done", config.vision_steps, model=model.state_dict())
    for module in setup.modules:
        module.requires_grad_(False)
    return pixels


def _train_language_stages(
    model: Any,
    setup: VisionSetup,
    speaker: Any,
    lessons: list[Lesson],
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> None:
    """Run the vision stage and all lessons that are not completed."""
    names = tuple(lesson.name for lesson in lessons)
    pixels = _train_vision_stage(model, setup, config, checkpoint, sink, names)
    features = encode_images(setup.encode, pixels)
    numbers = list(range(FIRST_UNSEEN, FIRST_UNSEEN + config.probe_images))
    unseen = encode_images(setup.encode, render_pixels(numbers, "test"))
    reached = next((k for k, name in enumerate(names) if checkpoint.load(name)), 0)
    for lesson in lessons[reached:]:
        train_language(model, speaker, lesson, features, unseen, config, checkpoint, sink)


def train_blip2(
    tokenizer: PreTrainedTokenizerFast,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> Any:
    """ViT and Q-Former first; then OPT learns captions and questions, and then relations."""
    model = build.build_blip2(config.seed).train()
    lessons = [
        Lesson("language", config.language_steps, config.language_lr, True, 12, 0),
        Lesson("relations", config.relation_steps, config.relation_lr, True, 6, 6),
    ]
    speaker = blip2_speaker(model, tokenizer)
    _train_language_stages(model, blip2_vision(model), speaker, lessons, config, checkpoint, sink)
    return model


def train_llava(
    tokenizer: PreTrainedTokenizerFast,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> Any:
    """The CLIP ViT first; then Llama learns captions and both kinds of questions."""
    model = build_llava.build_llava(config.seed).train()
    lessons = [Lesson("language", config.language_steps, config.language_lr, True, 6, 6)]
    speaker = llava_speaker(model, tokenizer)
    _train_language_stages(model, llava_vision(model), speaker, lessons, config, checkpoint, sink)
    return model


def train_itm(
    tokenizer: PreTrainedTokenizerFast,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> Any:
    """ViT and Q-Former as in the other BLIP-2; then the Q-Former learns to match text."""
    source = build.build_blip2(config.seed).train()
    if checkpoint.load("retrieval"):
        pixels = render_pixels(list(range(config.images)), "train")
    else:
        pixels = _train_vision_stage(source, blip2_vision(source), config, checkpoint, sink, ())
    model = build_retrieval.build_retrieval(config.seed, source).train()
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
    """A trained model with its tokenizer; `folder` has the state for resuming."""
    torch.set_num_threads(1)
    tokenizer = recipe.tokenizer()
    return recipe.train(tokenizer, config, Checkpoint(folder, config), sink), tokenizer
