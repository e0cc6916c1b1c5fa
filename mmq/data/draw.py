"""The samples to score and the pairs to calibrate on, drawn and checked."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmq.config import TaskOptions
from mmq.contracts.images import FileImage, ImageRef
from mmq.contracts.samples import CaptionSample, Sample
from mmq.data.calibration_mix import draw_mix
from mmq.data.calibration_split import check_apart, draw_calibration, spare_pairs, without_twins
from mmq.data.image_checks import check_images
from mmq.data.source import Source, find_source, fingerprint_samples, limited
from mmq.data.subsets import subset

log = logging.getLogger(__name__)


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
    source = find_source(task, options.data, options.dataset, options.fields)
    everything = source.samples()
    samples = subset(everything, limited(options.limit, len(everything)), options.seed)
    pairs: Sequence[Sample] = []
    if options.calibration_data and (calibrated or spare):
        pairs = draw_mix(options.calibration_data, task, options.calibration_samples, options.seed)
    elif calibrated or spare:
        samples, pairs = _own_pairs(source, everything, samples, options, calibrated)
    elif options.calibration_data:
        log.warning("calibration-data: not read, since nothing is calibrated here")
    digests = check_images((*samples, *pairs))
    if pairs and not options.calibration_data and not source.has_training():
        pairs = without_twins(pairs, samples, digests)
    check_apart(pairs, samples, digests)
    return DrawnData(
        everything,
        _joined(samples, digests),
        pairs,
        fingerprint_samples(everything, samples, digests),
        fingerprint_samples(pairs, pairs, digests) if pairs else "",
    )


def _own_pairs(
    source: Source,
    everything: Sequence[Sample],
    samples: Sequence[Sample],
    options: TaskOptions,
    calibrated: bool,
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The samples to score, and pairs from the same data."""
    count, seed = options.calibration_samples, options.seed
    if calibrated:
        return draw_calibration(source, everything, samples, count, seed)
    return samples, spare_pairs(source, everything, samples, count, seed)


def _joined(samples: Sequence[Sample], digests: Mapping[ImageRef, str]) -> list[Sample]:
    """The samples, with one image id for equal pictures that are cells of different rows.

    A data set without ids of its pictures repeats them per question; intervals must resample
    these questions together.
    """
    ids: dict[tuple[str, ...], str] = {}
    result = []
    captioned = 0
    for sample in samples:
        if not any(isinstance(image, FileImage) for image in sample.images):
            pictures = tuple(digests[image] for image in sample.images)
            image_id = ids.setdefault(pictures, sample.image_id)
            if image_id != sample.image_id:
                captioned += isinstance(sample, CaptionSample)
                sample = replace(sample, image_id=image_id)
        result.append(sample)
    if captioned:
        log.warning(
            "data: %d samples have a picture that another sample has with other captions; if rows "
            "repeat a picture, name the column that identifies it: --fields image_id=COLUMN",
            captioned,
        )
    return result
