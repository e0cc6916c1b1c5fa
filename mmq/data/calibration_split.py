"""Pairs that a quantizer may look at: never those that its result is scored on."""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmq.data.source import Source
from mmq.errors import InputError

log = logging.getLogger(__name__)


def draw_calibration(
    source: Source,
    everything: Sequence[Any],
    samples: Sequence[Any],
    count: int,
    seed: int,
) -> tuple[Sequence[Any], Sequence[Any]]:
    """The samples to evaluate and up to `count` seeded calibration pairs.

    The pairs come from the training split; where there is none, from samples that are not
    evaluated; where these are too few, from samples that are held out of the evaluation.
    """
    if not count:
        raise InputError("calibration_samples: 0, but this quantizer needs calibration pairs")
    pairs: Sequence[Any] | None = source.calibration(count, seed)
    if pairs is None:
        samples, pairs = _hold_out(everything, samples, count, seed)
        if not pairs:
            raise InputError(
                f"data: {source.name} in {str(source.root)!r} has no training split, and too few "
                f"pictures to hold some out for calibration. The expected layout:\n\n"
                f"{source.reader.layout}"
            )
    if len(pairs) < count:
        log.warning("calibration: %d pairs; %d were asked for", len(pairs), count)
    return samples, pairs


def spare_pairs(
    source: Source, everything: Sequence[Any], samples: Sequence[Any], count: int, seed: int
) -> Sequence[Any]:
    """Pairs for what can do without: no sample is held out for them, and nothing fails."""
    try:
        pairs: Sequence[Any] | None = source.calibration(count, seed)
    except InputError as error:
        log.warning("calibration: none, %s", error)
        return []
    if pairs is None:
        evaluated = {sample.image_id for sample in samples}
        pool = [sample for sample in everything if sample.image_id not in evaluated]
        pairs = random.Random(f"calibration {seed}").sample(pool, min(count, len(pool)))
    return pairs


def _hold_out(
    everything: Sequence[Any], samples: Sequence[Any], count: int, seed: int
) -> tuple[Sequence[Any], Sequence[Any]]:
    """The samples that stay, and pairs from pictures of which none is evaluated."""
    rng = random.Random(f"calibration {seed}")
    evaluated = {sample.image_id for sample in samples}
    spare = sum(sample.image_id not in evaluated for sample in everything)
    if spare < count:
        held = _images_to_hold(everything, evaluated, count - spare, rng)
        if not held and not spare:
            return samples, []
        kept = [sample for sample in samples if sample.image_id not in held]
        log.warning(
            "calibration: the data has no training split; %d of %d samples (%d pictures) are held "
            "out of the evaluation for it", len(samples) - len(kept), len(samples), len(held),
        )  # fmt: skip
        samples, evaluated = kept, evaluated - held
    pool = [k for k, sample in enumerate(everything) if sample.image_id not in evaluated]
    chosen = sorted(rng.sample(pool, min(count, len(pool))))
    return samples, [everything[k] for k in chosen]


def _images_to_hold(
    everything: Iterable[Any], evaluated: set[str], missing: int, rng: random.Random
) -> set[str]:
    """Random pictures with `missing` samples together, at most half of the evaluated ones."""
    sizes = Counter(sample.image_id for sample in everything)
    order = sorted(evaluated)
    rng.shuffle(order)
    held: set[str] = set()
    for image_id in order[: len(order) // 2]:
        if missing <= 0:
            break
        held.add(image_id)
        missing -= sizes[image_id]
    return held


def check_apart(
    calibration: Iterable[Any], samples: Iterable[Any], images: Mapping[Path, str]
) -> None:
    """InputError where a calibration picture is an evaluated one, by their files' content."""
    evaluated = {images[sample.image]: sample.image for sample in samples}
    for pair in calibration:
        if twin := evaluated.get(images[pair.image]):
            raise InputError(
                f"calibration: the picture {pair.image} is evaluated too"
                + (f", as {twin}" if twin != pair.image else "")
                + "; scores on it would say nothing. Mend the training split, or choose another "
                "--seed"
            )
