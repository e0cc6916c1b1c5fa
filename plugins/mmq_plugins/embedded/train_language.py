"""Stage 2: the language model learns to answer from the Q-Former's outputs."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from tqdm import tqdm
from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerFast

from mmq_plugins.embedded import scenes
from mmq_plugins.embedded.build import BOS, EOS, IMAGE, PAD, PROMPT, QUERY_TOKENS
from mmq_plugins.embedded.scene_text import Question, ask, captions
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

IGNORED = -100  # the label that the loss passes over


@dataclass(frozen=True, slots=True)
class Packed:
    """Several texts behind one image, a row an image; see `pack`."""

    ids: torch.Tensor  # (n, length)
    positions: torch.Tensor  # (n, length)
    mask: torch.Tensor  # (n, 1, length, length), added to the attention scores
    labels: torch.Tensor  # (n, length), the next token or IGNORED
    weights: torch.Tensor  # (n, length), how much that token counts


def pack(texts: list[list[tuple[str, str, float]]], tokenizer: PreTrainedTokenizerFast) -> Packed:
    """Rows of [image tokens, text 1, text 2, ...]; a text sees the image and itself alone.

    `texts` holds (prompt, target, weight) triples per image. Positions start anew behind the
    image for every text, so each one stands exactly where it will stand at evaluation.
    """

    @cache
    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    rows = [_pack_row(row, encode) for row in texts]
    length = (max(len(row[0]) for row in rows) + 7) // 8 * 8

    def table(k: int, filler: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([r[k] + [filler] * (length - len(r[k])) for r in rows], dtype=dtype)

    segments = table(2, -1, torch.long)
    sees = (segments[:, :, None] == segments[:, None, :]) | (segments[:, None, :] == 0)
    sees &= torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
    return Packed(
        ids=table(0, PAD, torch.long),
        positions=table(1, 0, torch.long),
        mask=mask[:, None],
        labels=table(3, IGNORED, torch.long),
        weights=table(4, 0.0, torch.float32),
    )


def _pack_row(
    texts: list[tuple[str, str, float]], encode: Callable[[str], list[int]]
) -> tuple[list[int], list[int], list[int], list[int], list[float]]:
    ids, positions = [IMAGE] * QUERY_TOKENS, list(range(QUERY_TOKENS))
    segments, labels, weights = [0] * QUERY_TOKENS, [IGNORED] * QUERY_TOKENS, [0.0] * QUERY_TOKENS
    for k, (prompt, target, weight) in enumerate(texts, start=1):
        given, wanted = [BOS, *encode(prompt)], [*encode(target), EOS]
        text = given + wanted
        ids += text[:-1]
        positions += range(QUERY_TOKENS, QUERY_TOKENS + len(text) - 1)
        segments += [k] * (len(text) - 1)
        labels += [IGNORED] * (len(given) - 1) + wanted
        # the end token is easy: it should not take the answer's weight
        weights += [0.0] * (len(given) - 1) + [weight] * (len(wanted) - 1) + [0.2 * weight]
    return ids, positions, segments, labels, weights


def _language_texts(
    scene: scenes.Scene, rng: random.Random, questions: int
) -> list[tuple[str, str, float]]:
    texts = [("", captions(scene, rng, 1)[0], 0.25)]  # many tokens: less weight for each
    for _ in range(questions):
        question = ask(scene, rng)
        texts.append((PROMPT.format(question.text), " " + question.answer, 1.0))
    return texts


def logits_at_labels(
    model: Blip2ForConditionalGeneration, features: torch.Tensor, packed: Packed
) -> torch.Tensor:
    """Logits where there is a label, (labelled tokens, vocabulary)."""
    embeddings = model.get_input_embeddings()(packed.ids)
    images = model.language_projection(features).to(embeddings.dtype)
    embeddings = torch.cat([images, embeddings[:, QUERY_TOKENS:]], dim=1)
    hidden = model.language_model.model.decoder(
        inputs_embeds=embeddings,
        attention_mask=packed.mask,
        position_ids=packed.positions,
        use_cache=False,
    ).last_hidden_state
    logits: torch.Tensor = model.language_model.lm_head(hidden[packed.labels != IGNORED])
    return logits


def train_language(
    model: Blip2ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    features: torch.Tensor,
    unseen: torch.Tensor,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> None:
    """Stage 2: the language model learns to read the Q-Former's outputs."""
    trained = [model.language_projection, model.language_model]
    optimizer = make_optimizer(trained, config)
    start = 0
    if state := checkpoint.load("language"):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    bar = tqdm(range(start, config.language_steps), desc="train language", initial=start)
    for step in bar:
        rng = random.Random(f"language-{config.seed}-{step}")
        chosen = batch_of_step(config, config.language_batch, step)
        texts = [
            _language_texts(scenes.make_scene(i), rng, config.questions_per_image) for i in chosen
        ]
        packed = pack(texts, tokenizer)
        with torch.autocast("cpu", torch.bfloat16):
            logits = logits_at_labels(model, features[chosen], packed)
        known = packed.labels != IGNORED
        losses = F.cross_entropy(logits.float(), packed.labels[known], reduction="none")
        loss = (losses * packed.weights[known]).sum() / packed.weights[known].sum()
        take_step(optimizer, loss, learning_rate(config.language_lr, step, config.language_steps))
        if (step + 1) % 20 == 0:
            sink({"language/loss": loss.item()}, step + 1)
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % config.checkpoint_every == 0:
            sink(prefixed("unseen/", probe_answers(model, tokenizer, unseen)), step + 1)
            checkpoint.save(
                "language",
                step + 1,
                model=model.state_dict(),
                optimizer=optimizer.state_dict(),
            )


def _unseen_questions(n: int) -> Iterator[list[Question]]:
    rng = random.Random("unseen")
    for index in range(n):
        scene = scenes.make_scene(1_000_000 + index, "test")
        yield [ask(scene, rng) for _ in range(8)]


@torch.no_grad()
def probe_answers(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, unseen: torch.Tensor
) -> dict[str, float]:
    """Share of right answers on unseen scenes by kind of question, teacher-forced."""
    rows = list(_unseen_questions(len(unseen)))
    right: dict[str, list[bool]] = {}
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        packed = pack(
            [[(PROMPT.format(q.text), " " + q.answer, 1.0) for q in row] for row in part],
            tokenizer,
        )
        with torch.autocast("cpu", torch.bfloat16):
            logits = logits_at_labels(model, unseen[start : start + 32], packed)
        hits = iter((logits.argmax(-1) == packed.labels[packed.labels != IGNORED]).tolist())
        for question in (q for row in part for q in row):
            length = len(tokenizer(" " + question.answer, add_special_tokens=False)["input_ids"])
            answer_right = [next(hits) for _ in range(length + 1)]
            right.setdefault(question.kind, []).append(all(answer_right))
    everything = [hit for hits_of_kind in right.values() for hit in hits_of_kind]
    shares = {kind: float(np.mean(hits_of_kind)) for kind, hits_of_kind in right.items()}
    return shares | {"all": float(np.mean(everything))}
