"""Batches of requests with equal numbers of pictures and prompts of similar length."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmq.contracts.vlm import Request
from mmq.errors import InputError

if TYPE_CHECKING:
    from mmq.models.loaded import LoadedModel


def batches(
    model: "LoadedModel",
    requests: Sequence[Request],
    texts: Sequence[str],
    size: int,
    max_tokens: int = 0,
) -> list[list[int]]:
    """Positions of requests in batches of at most `size`: as many pictures, similar lengths.

    texts: the rendered prompts. max_tokens: at most this many tokens per batch, with those of
    pictures and padding, 0 for any number; InputError for a sample with more.
    """
    parts: list[list[int]] = []
    for count in sorted({len(request.images) for request in requests}):
        same = [k for k, request in enumerate(requests) if len(request.images) == count]
        if max_tokens:
            lengths = token_counts(model, [requests[k] for k in same], [texts[k] for k in same])
            groups = by_tokens(lengths, size, max_tokens)
            for k, length in zip(same, lengths, strict=True):
                if length > max_tokens:
                    raise InputError(
                        f"max_batch_tokens: sample {requests[k].sample_id!r} alone has {length} "
                        f"tokens, more than {max_tokens}; raise it, or give --max-pixels"
                    )
        else:
            groups = by_length([requests[k].prompt for k in same], size)
        parts += [[same[k] for k in part] for part in groups]
    return parts


def by_length(texts: Sequence[str], size: int) -> list[list[int]]:
    """Positions of texts in batches, short ones first, for little padding."""
    order = sorted(range(len(texts)), key=lambda k: len(texts[k]))
    return [order[start : start + size] for start in range(0, len(order), size)]


def by_tokens(lengths: Sequence[int], size: int, most: int) -> list[list[int]]:
    """Positions in batches whose padded length is at most `most` tokens, short ones first.

    >>> by_tokens([5, 3, 4, 9], size=64, most=10)
    [[1, 2], [0], [3]]
    """
    parts: list[list[int]] = []
    for k in sorted(range(len(lengths)), key=lambda k: lengths[k]):
        fits = bool(parts) and len(parts[-1]) < size and (len(parts[-1]) + 1) * lengths[k] <= most
        if fits:
            parts[-1].append(k)
        else:
            parts.append([k])
    return parts


def token_counts(
    model: "LoadedModel", requests: Sequence[Request], texts: Sequence[str]
) -> list[int]:
    """The length of each prompt in tokens; pictures of one size have as many and count once."""
    by_sizes: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for k, request in enumerate(requests):
        by_sizes.setdefault(tuple(image.size() for image in request.images), []).append(k)
    counts = [0] * len(requests)
    for same in by_sizes.values():
        images = [image.open() for image in requests[same[0]].images]
        lengths = model.family.prompt_tokens(model.processor, images, [texts[k] for k in same])
        for k, length in zip(same, lengths, strict=True):
            counts[k] = length
    return counts
