"""The retrieval model's second stage: trains the Q-Former to encode and match text.

The ViT is frozen. Each step has three losses: a contrastive loss over the batch (image against
text, by the best query), matching of correct, edited and confused pairs, and a probe, later
discarded, that locates the wrong words of a text. Without it the matching head predicted the
majority class.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from tqdm import tqdm
from transformers import Blip2ForImageTextRetrieval, PreTrainedTokenizerFast

from mmq_plugins.embedded import scenes
from mmq_plugins.embedded.scene_pairs import edit, full_captions, minimal_group
from mmq_plugins.embedded.scene_text import captions
from mmq_plugins.embedded.steps import (
    Checkpoint,
    MetricSink,
    TrainConfig,
    batch_of_step,
    learning_rate,
    make_optimizer,
    take_step,
)
from mmq_plugins.embedded.train_vision import encode_images, pixels_of, vit_outputs

TEMPERATURE = 0.07  # start of the contrastive loss's learned temperature
PROBE_GROUPS = 10


@dataclass(frozen=True, slots=True)
class Texts:
    """Tokenized texts: ids and attention mask, (n, length)."""

    ids: torch.Tensor
    mask: torch.Tensor

    def __getitem__(self, rows: torch.Tensor) -> "Texts":
        return Texts(self.ids[rows], self.mask[rows])


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Texts:
    """Texts padded on the right."""
    encoded = tokenizer(texts, return_tensors="pt", padding=True)
    return Texts(encoded["input_ids"], encoded["attention_mask"])


def embed_images(model: Blip2ForImageTextRetrieval, vision: torch.Tensor) -> torch.Tensor:
    """Unit vectors of every query, (n, queries, shared width)."""
    queries = model.qformer(
        query_embeds=model.query_tokens.expand(len(vision), -1, -1), encoder_hidden_states=vision
    ).last_hidden_state
    return F.normalize(model.vision_projection(queries).float(), dim=-1)


def embed_texts(model: Blip2ForImageTextRetrieval, texts: Texts) -> torch.Tensor:
    """One unit vector per text, (n, shared width)."""
    states = model.qformer(
        query_embeds=model.embeddings(input_ids=texts.ids),
        query_length=0,
        attention_mask=texts.mask,
    ).last_hidden_state
    return F.normalize(model.text_projection(states[:, 0]).float(), dim=-1)


def match(
    model: Blip2ForImageTextRetrieval, vision: torch.Tensor, texts: Texts
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the matching head (n, 2), and the text's last states (n, length, width)."""
    queries = model.query_tokens.expand(len(vision), -1, -1)
    count = queries.shape[1]
    states = model.qformer(
        query_embeds=model.embeddings(input_ids=texts.ids, query_embeds=queries),
        query_length=count,
        attention_mask=F.pad(texts.mask, (count, 0), value=1),
        encoder_hidden_states=vision,
    ).last_hidden_state
    return model.itm_head(states[:, :count]).mean(1).float(), states[:, count:]


def wrong_tokens(given: Texts, right: Texts) -> torch.Tensor:
    """Which tokens of `given` lie between the beginning and the end shared with `right`."""
    wrong = torch.zeros(given.ids.shape)
    for row, (a, b) in enumerate(zip(given.ids.tolist(), right.ids.tolist(), strict=True)):
        lengths = int(given.mask[row].sum()), int(right.mask[row].sum())
        a, b = a[: lengths[0]], b[: lengths[1]]
        head = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
        tail = 0
        while tail < min(lengths) - head and a[-1 - tail] == b[-1 - tail]:
            tail += 1
        wrong[row, head : lengths[0] - tail] = 1
    return wrong


def _draw_texts(indices: list[int], rng: random.Random) -> tuple[list[str], list[str]]:
    """One correct caption per scene, and the same caption of an edited scene."""
    right, edited = [], []
    for index in indices:
        scene = scenes.make_scene(index)
        other = None
        while other is None:
            other = edit(scene, rng)
        if rng.random() < 0.5:
            template = rng.randrange(len(full_captions(scene)))
            right.append(full_captions(scene)[template])
            edited.append(full_captions(other)[template])
        else:
            seed = rng.random()
            right.append(captions(scene, random.Random(seed), 1)[0])
            edited.append(captions(other, random.Random(seed), 1)[0])
    return right, edited


class Reader(nn.Module):
    """Training-only parameters: the contrastive temperature and the probe of wrong words."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-float(np.log(TEMPERATURE))))
        self.norm = nn.LayerNorm(width)
        self.wrong = nn.Linear(width, 1)

    def forward(
        self, states: torch.Tensor, wrong: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Loss of locating wrong tokens; states (n, length, width)."""
        logits = self.wrong(self.norm(states))[..., 0].float()
        loss = F.binary_cross_entropy_with_logits(
            logits, wrong, weight=1 + 3 * wrong, reduction="none"
        )
        return (loss * mask).sum() / mask.sum()


def _losses(
    model: Blip2ForImageTextRetrieval,
    reader: Reader,
    vision: torch.Tensor,
    right: Texts,
    edited: Texts,
) -> dict[str, torch.Tensor]:
    """The three losses of a batch, and the accuracy of the matching head."""
    n = len(vision)
    with torch.autocast("cpu", torch.bfloat16):
        images, texts = embed_images(model, vision), embed_texts(model, right)
    similar = torch.einsum("iqd,td->itq", images, texts).amax(-1)
    scaled = similar * reader.log_scale.exp().clamp(max=100)
    target = torch.arange(n)
    contrast = F.cross_entropy(scaled, target) + F.cross_entropy(scaled.T, target)
    # hard negatives: texts similar to an image's own
    odds = scaled.detach().masked_fill(torch.eye(n, dtype=torch.bool), -1e4).softmax(1)
    confused = torch.multinomial(odds, 1)[:, 0]
    half = n // 2
    rows = torch.cat([target, target, target[:half]])
    pairs = Texts(
        torch.cat([right.ids, edited.ids, right.ids[confused[:half]]]),
        torch.cat([right.mask, edited.mask, right.mask[confused[:half]]]),
    )
    with torch.autocast("cpu", torch.bfloat16):
        logits, states = match(model, vision[rows], pairs)
        wrong = torch.cat([torch.zeros(right.ids.shape), wrong_tokens(edited, right)])
        pointing = reader(states[: 2 * n], wrong, pairs.mask[: 2 * n])
    same = (edited.ids == right.ids).all(1)  # an edit that this caption does not mention
    labels = torch.cat([torch.ones(n), same.float(), torch.zeros(half)]).long()
    weight = torch.tensor([2 / 3, 1.0])
    return {
        "contrast": contrast / 2,
        "matching": F.cross_entropy(logits, labels, weight=weight),
        "pointing": pointing,
        "r1": (similar.argmax(1) == target).float().mean(),
        "matched": (logits.argmax(1) == labels).float().mean(),
    }


def train_retrieval(
    model: Blip2ForImageTextRetrieval,
    tokenizer: PreTrainedTokenizerFast,
    vision: torch.Tensor,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> None:
    """Train all but the ViT, from its cached outputs (n, patches, width)."""
    torch.manual_seed(config.seed)
    reader = Reader(model.config.qformer_config.hidden_size)
    trained = [model.qformer, model.embeddings, model.vision_projection]
    trained += [model.text_projection, model.itm_head, reader]
    optimizer = make_optimizer(trained, config)
    optimizer.add_param_group({"params": [model.query_tokens], "weight_decay": 0.0})
    start = 0
    if state := checkpoint.load("retrieval"):
        model.load_state_dict(state["model"])
        reader.load_state_dict(state["reader"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    pool = probe_pool(model)
    bar = tqdm(range(start, config.language_steps), desc="train retrieval", initial=start)
    for step in bar:
        torch.manual_seed(config.seed * 1_000_003 + step)
        rng = random.Random(f"retrieval-{config.seed}-{step}")
        images = batch_of_step(config, config.language_batch, step)
        texts = _draw_texts(images, rng)
        both = tokenize(tokenizer, [*texts[0], *texts[1]])
        n = len(images)
        losses = _losses(model, reader, vision[images], both[torch.arange(n)],
                        both[torch.arange(n, 2 * n)])  # fmt: skip
        loss = losses["contrast"] + 2 * losses["matching"] + losses["pointing"]
        take_step(optimizer, loss, learning_rate(config.language_lr, step, config.language_steps))
        if (step + 1) % 20 == 0:
            values = {f"retrieval/{name}": value.item() for name, value in losses.items()}
            sink(values, step + 1)
            bar.set_postfix({k: f"{values[f'retrieval/{k}']:.3f}" for k in ("r1", "matched")})
        if (step + 1) % config.checkpoint_every == 0:
            sink(probe_ranks(model, tokenizer, *pool), step + 1)
            checkpoint.save(
                "retrieval",
                step + 1,
                model=model.state_dict(),
                reader=reader.state_dict(),
                optimizer=optimizer.state_dict(),
            )


def probe_pool(model: Blip2ForImageTextRetrieval) -> tuple[torch.Tensor, list[str]]:
    """Held-out groups of minimal pairs: ViT outputs, and one caption each."""
    rng = random.Random("probe pool")
    pool = [
        scene
        for k in range(PROBE_GROUPS)
        for scene in minimal_group(scenes.make_scene(3_000_000 + k, "test"), rng)
    ]
    vision = encode_images(vit_outputs(model), pixels_of(pool))
    return vision, [full_captions(scene)[0] for scene in pool]


@torch.no_grad()
def probe_ranks(
    model: Blip2ForImageTextRetrieval,
    tokenizer: PreTrainedTokenizerFast,
    vision: torch.Tensor,
    texts: list[str],
) -> dict[str, float]:
    """R@1 from image to text in the pool, by similarity alone and with the matching head."""
    tokens = tokenize(tokenizer, texts)
    with torch.autocast("cpu", torch.bfloat16):
        images, vectors = embed_images(model, vision), embed_texts(model, tokens)
        similar = torch.einsum("iqd,td->itq", images, vectors).amax(-1)
        top = similar.topk(10, dim=1).indices  # (n, 10)
        rows = torch.arange(len(vision)).repeat_interleave(10)
        logits, _ = match(model, vision[rows], tokens[top.flatten()])
    ranked = similar.gather(1, top) + logits[:, 1].reshape(-1, 10)
    best = top.gather(1, ranked.argmax(1, keepdim=True))[:, 0]
    target = torch.arange(len(vision))
    return {
        "unseen/r1_contrast": (similar.argmax(1) == target).float().mean().item(),
        "unseen/r1_matching": (best == target).float().mean().item(),
    }
