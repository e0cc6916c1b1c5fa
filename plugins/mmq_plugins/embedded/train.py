"""Trains the embedded BLIP-2 from a seed: first to see, then to speak about what it sees.

Stage 1 trains the ViT and the Q-Former under linear probes that name what stands in each cell; the
probes are dropped. Stage 2 freezes both and trains the language model and its projection on
captions, questions and answers, from cached Q-Former features. Both stages run in bfloat16
autocast on one thread, so that a seed means one result on one kind of processor.
"""

import logging
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import nn
from tqdm import tqdm
from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerFast

from mmq_plugins.embedded import scenes
from mmq_plugins.embedded.build import BOS, EOS, IMAGE, PAD, PROMPT, QUERY_TOKENS
from mmq_plugins.embedded.scene_text import Question, ask, captions

log = logging.getLogger(__name__)
MetricSink = Callable[[dict[str, float], int], None]
IGNORED = -100  # the label that the loss passes over


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How long and how fast; the defaults made the checkpoint that ships."""

    seed: int = 0
    images: int = 60_000
    vision_steps: int = 1_600
    vision_batch: int = 64
    vision_lr: float = 1e-3
    language_steps: int = 6_000
    language_batch: int = 32
    language_lr: float = 1e-3
    questions_per_image: int = 12
    weight_decay: float = 0.05
    probe_images: int = 256  # unseen scenes that the curves are measured on
    checkpoint_every: int = 200


def _pixels(indices: list[int], split: scenes.Split) -> np.ndarray:
    """Pictures as they come back from JPEG, uint8 (n, 64, 64, 3)."""
    import io

    pictures = np.empty((len(indices), scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3), dtype=np.uint8)
    for k, index in enumerate(tqdm(indices, desc=f"render {split} scenes", unit="scene")):
        encoded = scenes.encode_jpeg(scenes.render(scenes.make_scene(index, split)))
        pictures[k] = np.asarray(Image.open(io.BytesIO(encoded)))
    return pictures


def _normalize(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w), as the processor does it."""
    return ((torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25).permute(0, 3, 1, 2).contiguous()


def _augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    n = len(pixels)
    gain = 1 + 0.06 * torch.randn(n, 1, 1, 1, generator=generator)
    return pixels * gain + 0.06 * torch.randn(n, 3, 1, 1, generator=generator)


def _learning_rate(peak: float, step: int, total: int, warmup: int = 100) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def _optimizer(modules: list[nn.Module], config: TrainConfig) -> torch.optim.AdamW:
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    unique = list(dict.fromkeys(parameters))
    return torch.optim.AdamW(
        [
            {"params": [p for p in unique if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in unique if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        eps=1e-6,
    )


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


class Checkpoint:
    """The training state on disk, so that a killed training goes on from its last save."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self.path = folder / "training.pt"
        self.config = config

    def load(self, stage: str) -> dict[str, Any] | None:
        """The saved state of a stage, or None; a state of other settings is refused."""
        if not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        if state["config"] != asdict(self.config):
            raise ValueError(
                f"{self.path} holds a training with other settings; remove it or use its settings"
            )
        return state if state["stage"] == stage else None

    def save(self, stage: str, step: int, **tensors: Any) -> None:
        """Replace the saved state at once: never half of it."""
        aside = self.path.with_suffix(".tmp")
        torch.save({"stage": stage, "step": step, "config": asdict(self.config), **tensors}, aside)
        aside.replace(self.path)


class Probe(nn.Module):
    """Linear heads that name shape, colour and size of a cell, and the background."""

    CLASSES = (len(scenes.SHAPES) + 1, len(scenes.COLORS) + 1, len(scenes.SIZES) + 1)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, sum(self.CLASSES) + len(scenes.BACKGROUNDS))

    def forward(
        self, features: torch.Tensor, cells: torch.Tensor, background: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss, and the share of cells named right; features (n, 16, width), cells (n, 16, 3)."""
        *parts, ground = self.head(self.norm(features)).split(
            [*self.CLASSES, len(scenes.BACKGROUNDS)], dim=-1
        )
        loss = F.cross_entropy(ground.flatten(0, 1), background.repeat_interleave(ground.shape[1]))
        right = torch.ones(cells.shape[:2], dtype=torch.bool)
        for k, logits in enumerate(parts):
            loss = loss + F.cross_entropy(logits.flatten(0, 1), cells[..., k].flatten())
            right &= logits.argmax(-1) == cells[..., k]
        return loss, right.float().mean()


def _see(
    model: Blip2ForConditionalGeneration, pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """ViT features averaged over each cell (n, 16, width), and Q-Former outputs (n, 16, width)."""
    vision = model.vision_model(pixel_values=pixels).last_hidden_state
    queries = model.qformer(
        query_embeds=model.query_tokens.expand(len(pixels), -1, -1),
        encoder_hidden_states=vision,
    ).last_hidden_state
    grid, n = scenes.GRID, len(pixels)
    cells = vision[:, 1:].reshape(n, grid, 2, grid, 2, -1).mean((2, 4)).reshape(n, grid * grid, -1)
    return cells, queries


def _batches(config: TrainConfig, size: int, step: int) -> list[int]:
    """The images of a step: every epoch a new shuffle, a function of the step alone."""
    per_epoch = config.images // size
    epoch, k = divmod(step, per_epoch)
    order = np.random.RandomState(config.seed * 1000 + epoch).permutation(config.images)
    return [int(i) for i in order[k * size : (k + 1) * size]]


def train_vision(
    model: Blip2ForConditionalGeneration,
    pixels: np.ndarray,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> None:
    """Stage 1: ViT and Q-Former learn to name every cell."""
    torch.manual_seed(config.seed)
    probes = nn.ModuleList([Probe(model.config.vision_config.hidden_size), Probe(128)])
    trained = [model.vision_model, model.qformer, probes]
    optimizer = _optimizer(trained, config)
    optimizer.add_param_group({"params": [model.query_tokens], "weight_decay": 0.0})
    scene_list = [scenes.make_scene(i) for i in range(config.images)]
    cells = torch.from_numpy(np.stack([scenes.cell_labels(s) for s in scene_list]))
    names = list(scenes.BACKGROUNDS)
    grounds = torch.tensor([names.index(s.background) for s in scene_list])
    start = 0
    if state := checkpoint.load("vision"):
        model.load_state_dict(state["model"])
        probes.load_state_dict(state["probes"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    generator = torch.Generator()
    bar = tqdm(range(start, config.vision_steps), desc="train vision", initial=start)
    for step in bar:
        chosen = _batches(config, config.vision_batch, step)
        generator.manual_seed(config.seed * 1_000_003 + step)
        batch = _augment(_normalize(pixels[chosen]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            seen = _see(model, batch)
            results = [
                probe(features, cells[chosen], grounds[chosen])
                for probe, features in zip(probes, seen, strict=True)
            ]
        loss = results[0][0] + results[1][0]
        _step(optimizer, loss, _learning_rate(config.vision_lr, step, config.vision_steps))
        if (step + 1) % 20 == 0:
            accuracy = {"vit": results[0][1].item(), "qformer": results[1][1].item()}
            sink({"vision/loss": loss.item()} | _prefixed("vision/cells_", accuracy), step + 1)
            bar.set_postfix(loss=f"{loss.item():.3f}", cells=f"{accuracy['qformer']:.3f}")
        if (step + 1) % config.checkpoint_every == 0:
            checkpoint.save(
                "vision",
                step + 1,
                model=model.state_dict(),
                probes=probes.state_dict(),
                optimizer=optimizer.state_dict(),
            )


def _prefixed(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {prefix + key: value for key, value in values.items()}


@torch.no_grad()
def encode_images(model: Blip2ForConditionalGeneration, pixels: np.ndarray) -> torch.Tensor:
    """Q-Former outputs of all pictures, (n, 16, width) in bfloat16."""
    parts = []
    for start in tqdm(range(0, len(pixels), 256), desc="encode images", unit="batch"):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(_see(model, _normalize(pixels[start : start + 256]))[1].bfloat16())
    return torch.cat(parts)


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


def _logits_at_labels(
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
    optimizer = _optimizer(trained, config)
    start = 0
    if state := checkpoint.load("language"):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    bar = tqdm(range(start, config.language_steps), desc="train language", initial=start)
    for step in bar:
        rng = random.Random(f"language-{config.seed}-{step}")
        chosen = _batches(config, config.language_batch, step)
        texts = [
            _language_texts(scenes.make_scene(i), rng, config.questions_per_image) for i in chosen
        ]
        packed = pack(texts, tokenizer)
        with torch.autocast("cpu", torch.bfloat16):
            logits = _logits_at_labels(model, features[chosen], packed)
        known = packed.labels != IGNORED
        losses = F.cross_entropy(logits.float(), packed.labels[known], reduction="none")
        loss = (losses * packed.weights[known]).sum() / packed.weights[known].sum()
        _step(optimizer, loss, _learning_rate(config.language_lr, step, config.language_steps))
        if (step + 1) % 20 == 0:
            sink({"language/loss": loss.item()}, step + 1)
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % config.checkpoint_every == 0:
            sink(_prefixed("unseen/", probe_answers(model, tokenizer, unseen)), step + 1)
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
            logits = _logits_at_labels(model, unseen[start : start + 32], packed)
        hits = iter((logits.argmax(-1) == packed.labels[packed.labels != IGNORED]).tolist())
        for question in (q for row in part for q in row):
            length = len(tokenizer(" " + question.answer, add_special_tokens=False)["input_ids"])
            answer_right = [next(hits) for _ in range(length + 1)]
            right.setdefault(question.kind, []).append(all(answer_right))
    everything = [hit for hits_of_kind in right.values() for hit in hits_of_kind]
    shares = {kind: float(np.mean(hits_of_kind)) for kind, hits_of_kind in right.items()}
    return shares | {"all": float(np.mean(everything))}


def train_blip2(
    model: Blip2ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    config: TrainConfig,
    folder: Path,
    sink: MetricSink,
) -> None:
    """Train in place; `folder` keeps the state, so that the same call goes on after a kill."""
    checkpoint = Checkpoint(folder, config)
    pixels = _pixels(list(range(config.images)), "train")
    if checkpoint.load("language") is None:
        train_vision(model, pixels, config, checkpoint, sink)
        checkpoint.save("vision-done", config.vision_steps, model=model.state_dict())
    state = checkpoint.load("language") or checkpoint.load("vision-done")
    assert state is not None
    model.load_state_dict(state["model"])
    unseen = _pixels(list(range(1_000_000, 1_000_000 + config.probe_images)), "test")
    for module in (model.vision_model, model.qformer):
        module.requires_grad_(False)
    features, unseen_features = encode_images(model, pixels), encode_images(model, unseen)
    train_language(model, tokenizer, features, unseen_features, config, checkpoint, sink)
