"""The second stage: trains a language model on frozen features of the pictures."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from tqdm import tqdm

from mmq_plugins.embedded import scenes
from mmq_plugins.embedded.packing import IGNORED, logits_at_labels, pack
from mmq_plugins.embedded.scene_relations import ask_relations
from mmq_plugins.embedded.scene_text import ask
from mmq_plugins.embedded.speakers import Example, Speaker
from mmq_plugins.embedded.steps import (
    Checkpoint,
    MetricSink,
    TrainConfig,
    batch_of_step,
    learning_rate,
    make_optimizer,
    prefixed,
    take_step,
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """A language stage: steps, learning rate, and number of texts per picture."""

    name: str
    steps: int
    lr: float
    captioned: bool
    questions: int
    relations: int


def train_language(
    model: nn.Module,
    speaker: Speaker,
    lesson: Lesson,
    features: torch.Tensor,
    unseen: torch.Tensor,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> None:
    """Train the language model and its projection on the lesson's texts."""
    optimizer = make_optimizer(speaker.modules, config)
    start = 0
    if state := checkpoint.load(lesson.name):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    bar = tqdm(range(start, lesson.steps), desc=f"train {lesson.name}", initial=start)
    for step in bar:
        rng = random.Random(f"{lesson.name}-{config.seed}-{step}")
        images = batch_of_step(config, config.language_batch, step)
        texts = [
            speaker.texts(
                scenes.make_scene(i), rng, lesson.captioned, lesson.questions, lesson.relations
            )
            for i in images
        ]
        packed = pack(texts, speaker)
        with torch.autocast("cpu", torch.bfloat16):
            logits = logits_at_labels(speaker, features[images], packed)
        labelled = packed.labels != IGNORED
        losses = F.cross_entropy(logits.float(), packed.labels[labelled], reduction="none")
        loss = (losses * packed.weights[labelled]).sum() / packed.weights[labelled].sum()
        take_step(optimizer, loss, learning_rate(lesson.lr, step, lesson.steps))
        if (step + 1) % 20 == 0:
            sink({f"{lesson.name}/loss": loss.item()}, step + 1)
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == lesson.steps:
            sink(prefixed(f"{lesson.name}/unseen_", probe_answers(speaker, unseen)), step + 1)
            checkpoint.save(
                lesson.name,
                step + 1,
                model=model.state_dict(),
                optimizer=optimizer.state_dict(),
            )


def _unseen_questions(n: int) -> Iterator[list[tuple[str, str, str]]]:
    """Question, answer and kind: five VQA and five relational questions per scene."""
    rng = random.Random("unseen")
    for index in range(n):
        scene = scenes.make_scene(1_000_000 + index, "test")
        rows = [(q.text, q.answer, q.kind) for q in (ask(scene, rng) for _ in range(5))]
        related = ask_relations(scene, rng, 5)
        yield rows + [(q.text, q.answer, f"{q.structural}_{q.semantic}") for q in related]


@torch.no_grad()
def probe_answers(speaker: Speaker, unseen: torch.Tensor) -> dict[str, float]:
    """Accuracy on held-out scenes by kind of question, teacher-forced."""
    rows = list(_unseen_questions(len(unseen)))
    right: dict[str, list[bool]] = {}
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        examples: list[list[Example]] = [
            [speaker.question(q, a) for q, a, _ in row] for row in part
        ]
        with torch.autocast("cpu", torch.bfloat16):
            packed = pack(examples, speaker)
            logits = logits_at_labels(speaker, unseen[start : start + 32], packed)
        hits = iter((logits.argmax(-1) == packed.labels[packed.labels != IGNORED]).tolist())
        for _, answer, kind in (entry for row in part for entry in row):
            length = len(speaker.tokenizer(" " + answer, add_special_tokens=False)["input_ids"])
            answer_right = [next(hits) for _ in range(length + 1)]
            right.setdefault(kind, []).append(all(answer_right))
    plain = {kind: hits for kind, hits in right.items() if "_" not in kind}
    related = {kind: hits for kind, hits in right.items() if "_" in kind}
    shares = {kind: float(np.mean(hits)) for kind, hits in right.items()}
    for name, group in (("vqa", plain), ("gqa", related)):
        shares[name] = float(np.mean([hit for hits in group.values() for hit in hits]))
    return shares
