"""Trains the embedded BLIP-2 from a seed: first to see, then to speak about what it sees.

Stage 1 trains the ViT and the Q-Former under linear probes that name what stands in each cell; the
probes are dropped. Stage 2 freezes both and trains the language model and its projection on
captions, questions and answers, from cached Q-Former features. Both stages run in bfloat16
autocast on one thread, so that a seed means one result on one kind of processor.
"""

from pathlib import Path

from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerFast

from mmq_plugins.embedded.steps import Checkpoint, MetricSink, TrainConfig
from mmq_plugins.embedded.train_language import train_language
from mmq_plugins.embedded.train_vision import encode_images, render_pixels, train_vision


def train_blip2(
    model: Blip2ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    config: TrainConfig,
    folder: Path,
    sink: MetricSink,
) -> None:
    """Train in place; `folder` keeps the state, so that the same call goes on after a kill."""
    checkpoint = Checkpoint(folder, config)
    seen = checkpoint.load("language") or checkpoint.load("vision-done")
    pixels = render_pixels(list(range(config.images)), "train")
    if seen is None:
        train_vision(model, pixels, config, checkpoint, sink)
        checkpoint.save("vision-done", config.vision_steps, model=model.state_dict())
    else:
        model.load_state_dict(seen["model"])
    unseen = render_pixels(list(range(1_000_000, 1_000_000 + config.probe_images)), "test")
    for module in (model.vision_model, model.qformer):
        module.requires_grad_(False)
    features, unseen_features = encode_images(model, pixels), encode_images(model, unseen)
    train_language(model, tokenizer, features, unseen_features, config, checkpoint, sink)
