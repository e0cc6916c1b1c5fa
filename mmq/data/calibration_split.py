"""Calibration pairs: the samples that a quantizer may use, never those that are scored."""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mmq.contracts.images import ImageRef
from mmq.contracts.samples import Sample
from mmq.data.source import Source
from mmq.errors import InputError

log = logging.getLogger(__name__)


def draw_calibration(
    source: Source,
    everything: Sequence[Sample],
    samples: Sequence[Sample],
    count: int,
    seed: int,
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The samples to evaluate and up to `count` seeded calibration pairs.

    The pairs come from the training split; if there is none, from samples that are not
    evaluated; if these are too few, from samples that are held out of the evaluation.
    """
    if not count:
        raise InputError("calibration_samples: 0, but this quantizer needs calibration pairs")
    pairs: Sequence[Sample] | None = source.calibration(count, seed)
    if pairs is None:
        samples, pairs = _hold_out(everything, samples, count, seed)
        if not pairs:
            raise InputError(
                f"data: {source.name} in {str(source.root)!r} has no training split, and too few "
                f"pictures to hold some out for calibration. The expected layout:\n\n"
                f"{source.reader.layout}"
            )
    if len(pairs) < count:
        log.warning("calibration: %d pairs; %d were requested", len(pairs), count)
    return samples, pairs


def spare_pairs(
    source: Source,
    everything: Sequence[Sample],
    samples: Sequence[Sample],
    count: int,
    seed: int,
) -> Sequence[Sample]:
    """Optional pairs: no sample is held out for them, and a damaged training split gives none."""
    if not count:
        return []
    try:
        pairs: Sequence[Sample] | None = source.calibration(count, seed)
    except InputError as error:
        log.warning("calibration: none, %s", error)
        return []
    if pairs is None:
        pool = _apart_from(everything, samples)
        pairs = random.Random(f"calibration {seed}").sample(pool, min(count, len(pool)))
    return pairs


def _hold_out(
    everything: Sequence[Sample], samples: Sequence[Sample], count: int, seed: int
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The remaining samples, and pairs from pictures that are not evaluated."""
    rng = random.Random(f"calibration {seed}")
    spare = len(_apart_from(everything, samples))
    if spare < count:
        evaluated = {sample.image_id for sample in samples}
        held_out = _images_to_hold_out(everything, evaluated, count - spare, rng)
        if not held_out and not spare:
            return samples, []
        rest = [sample for sample in samples if sample.image_id not in held_out]
        log.warning(
            "calibration: the data has no training split; %d of %d samples (%d pictures) are held "
            "out of the evaluation for it", len(samples) - len(rest), len(samples), len(held_out),
        )  # fmt: skip
        samples = rest
    pool = _apart_from(everything, samples)
    places = sorted(rng.sample(range(len(pool)), min(count, len(pool))))
    return samples, [pool[k] for k in places]


def _apart_from(everything: Iterable[Sample], samples: Iterable[Sample]) -> list[Sample]:
    """The samples that share no picture with evaluated ones."""
    evaluated = {image for sample in samples for image in sample.images}
    return [sample for sample in everything if evaluated.isdisjoint(sample.images)]


def _images_to_hold_out(
    everything: Iterable[Sample], evaluated: set[str], missing: int, rng: random.Random
) -> set[str]:
    """Random image ids with `missing` samples together, at most half of the evaluated ones."""
    sizes = Counter(sample.image_id for sample in everything)
    order = sorted(evaluated)
    rng.shuffle(order)
    held_out: set[str] = set()
    for image_id in order[: len(order) // 2]:
        if missing <= 0:
            break
        held_out.add(image_id)
        missing -= sizes[image_id]
    return held_out


def without_twins(
    pairs: Sequence[Sample], samples: Iterable[Sample], digests: Mapping[ImageRef, str]
) -> Sequence[Sample]:
    """The pairs without a picture that is evaluated as well, in another row or under another name.

    Tables repeat a picture per question, and people copy files: only the content identifies it.
    """
    evaluated = {digests[image] for sample in samples for image in sample.images}
    rest = [p for p in pairs if evaluated.isdisjoint(digests[image] for image in p.images)]
    if len(rest) < len(pairs):
        log.warning(
            "calibration: %d of %d pairs have a picture that is also evaluated, in another row or "
            "as a copy; they are left out", len(pairs) - len(rest), len(pairs),
        )  # fmt: skip
    if pairs and not rest:
        raise InputError(
            "calibration: every picture of the pairs is also evaluated; pass other data as "
            "--calibration-data, or score fewer samples with --limit"
        )
    return rest if len(rest) < len(pairs) else pairs


def check_apart(
    calibration: Iterable[Sample], samples: Iterable[Sample], digests: Mapping[ImageRef, str]
) -> None:
    """InputError if a calibration picture is an evaluated one, compared by content."""
    evaluated = {digests[image]: image for sample in samples for image in sample.images}
    for image in (image for pair in calibration for image in pair.images):
        if twin := evaluated.get(digests[image]):
            raise InputError(
                f"calibration: the picture {image.name} is evaluated too"
                + (f", as {twin.name}" if twin != image else "")
                + "; scores on it would be biased. Remove it from the calibration data, or "
                "choose another --seed"
            )
