"""The samples to score and the pairs to calibrate on, drawn and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmq.config import TaskOptions
from mmq.data.calibration_split import check_apart, draw_calibration, spare_pairs
from mmq.data.images import check_images
from mmq.data.source import find_source, fingerprint_samples, limited, subset


@dataclass(frozen=True, slots=True)
class DrawnData:
    """The samples to score and the pairs to calibrate on, out of everything, fingerprinted."""

    everything: Sequence[Any]
    samples: Sequence[Any]
    calibration: Sequence[Any]
    fingerprint: str
    calibration_fingerprint: str


def draw_data(chosen: TaskOptions, task: str, calibrated: bool, spare: bool = False) -> DrawnData:
    """Find the data, draw from it, and see that every picture can be read and none is on both
    sides. The training split is left alone where nothing is calibrated, nor spare pairs wanted.
    """
    source = find_source(task, chosen.data, chosen.dataset)
    everything = source.samples()
    samples = subset(everything, limited(chosen.limit, len(everything)), chosen.seed)
    pairs: Sequence[Any] = []
    if calibrated:
        samples, pairs = draw_calibration(
            source, everything, samples, chosen.calibration_samples, chosen.seed
        )
    elif spare:
        count = chosen.calibration_samples
        pairs = spare_pairs(source, everything, samples, count, chosen.seed)
    named = {sample.image: sample.id for sample in reversed((*samples, *pairs))}
    images = check_images(named, samples=named)
    check_apart(pairs, samples, images)
    return DrawnData(
        everything,
        samples,
        pairs,
        fingerprint_samples(everything, samples, images),
        fingerprint_samples(pairs, pairs, images) if pairs else "",
    )
