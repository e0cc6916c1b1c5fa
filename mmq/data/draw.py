"""The samples to score and the pairs to calibrate on, drawn and checked."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmq.config import TaskOptions
from mmq.contracts.samples import Sample
from mmq.data.calibration_split import check_apart, draw_calibration, spare_pairs
from mmq.data.image_checks import check_images
from mmq.data.source import find_source, fingerprint_samples, limited
from mmq.data.subsets import subset


@dataclass(frozen=True, slots=True)
class DrawnData:
    """The samples to score and the pairs to calibrate on, out of everything, fingerprinted."""

    everything: Sequence[Sample]
    samples: Sequence[Sample]
    calibration: Sequence[Sample]
    fingerprint: str
    calibration_fingerprint: str


def draw_data(options: TaskOptions, task: str, calibrated: bool, spare: bool = False) -> DrawnData:
    """Find the data, draw from it, and check that every picture opens and is in one draw only.

    The training split is read only for calibration, or if `spare` pairs are requested.
    """
    source = find_source(task, options.data, options.dataset)
    everything = source.samples()
    samples = subset(everything, limited(options.limit, len(everything)), options.seed)
    pairs: Sequence[Sample] = []
    if calibrated:
        samples, pairs = draw_calibration(
            source, everything, samples, options.calibration_samples, options.seed
        )
    elif spare:
        count = options.calibration_samples
        pairs = spare_pairs(source, everything, samples, count, options.seed)
    digests = check_images((*samples, *pairs))
    check_apart(pairs, samples, digests)
    return DrawnData(
        everything,
        samples,
        pairs,
        fingerprint_samples(everything, samples, digests),
        fingerprint_samples(pairs, pairs, digests) if pairs else "",
    )
