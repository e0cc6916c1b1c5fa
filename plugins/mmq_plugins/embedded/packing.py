"""Packs several texts about one picture into one row, so that it is encoded once per step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from mmq_plugins.embedded.build import EOS, IMAGE, PAD
from mmq_plugins.embedded.speakers import Example, Speaker

IGNORED = -100  # the label that the loss ignores


@dataclass(frozen=True, slots=True)
class Packed:
    """Several texts after one image, one row per image; see `pack`."""

    ids: torch.Tensor  # (n, length)
    positions: torch.Tensor  # (n, length)
    mask: torch.Tensor  # (n, 1, length, length), added to the attention scores
    labels: torch.Tensor  # (n, length), the next token or IGNORED
    weights: torch.Tensor  # (n, length), of that token


def pack(texts: list[list[Example]], speaker: Speaker) -> Packed:
    """Rows of [prefix, image tokens, text 1, text 2, ...]; a text attends to the image and itself.

    Positions restart after the image for every text, so each has the positions of evaluation.
    """

    @cache
    def encode(text: str) -> list[int]:
        ids: list[int] = speaker.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    rows = [_pack_row(row, speaker, encode) for row in texts]
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
    texts: list[Example], speaker: Speaker, encode: Callable[[str], list[int]]
) -> tuple[list[int], list[int], list[int], list[int], list[float]]:
    ids = [*speaker.prefix, *[IMAGE] * speaker.image_tokens]
    start = len(ids)
    positions, segments, labels = list(range(start)), [0] * start, [IGNORED] * start
    weights = [0.0] * start
    for k, example in enumerate(texts, start=1):
        given, wanted = [*speaker.opening, *encode(example.prompt)], [*encode(example.target), EOS]
        assert given, "the first target token needs one before it"
        text = given + wanted
        ids += text[:-1]
        positions += range(start, start + len(text) - 1)
        segments += [k] * (len(text) - 1)
        labels += [IGNORED] * (len(given) - 1) + wanted
        # the end token is easy and should not dominate the answer
        weights += [0.0] * (len(given) - 1)
        weights += [example.weight] * (len(wanted) - 1) + [0.2 * example.weight]
    return ids, positions, segments, labels, weights


def logits_at_labels(speaker: Speaker, features: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Logits at tokens with a label, (labelled tokens, vocabulary)."""
    embeddings = speaker.embed(packed.ids)
    images = speaker.project(features).to(embeddings.dtype)
    first, last = len(speaker.prefix), len(speaker.prefix) + speaker.image_tokens
    embeddings = torch.cat([embeddings[:, :first], images, embeddings[:, last:]], dim=1)
    hidden = speaker.decode(embeddings, packed.mask, packed.positions)
    logits: torch.Tensor = speaker.head(hidden[packed.labels != IGNORED])
    return logits
