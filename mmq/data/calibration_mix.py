"""Calibration pairs from other data than the evaluated ones, also mixed by weight."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmq.contracts.samples import Sample, TextSample
from mmq.data.source import find_source, find_texts
from mmq.data.subsets import reservoir
from mmq.errors import InputError

log = logging.getLogger(__name__)
LONGEST = 4096  # characters of a text: about a thousand tokens
WEIGHT = re.compile(r":(\d+(?:\.\d+)?|\.\d+)$")


@dataclass(frozen=True, slots=True)
class Part:
    """A data set to calibrate on, with its weight."""

    data: str
    weight: float


def parse_mix(text: str) -> list[Part]:
    """The data sets that --calibration-data names; the weight of each is 1 unless it is given.

    >>> parse_mix("a.csv:0.7, b/:0.3")
    [Part(data='a.csv', weight=0.7), Part(data='b/', weight=0.3)]
    """
    if Path(text).exists():  # its name may contain a comma or a colon
        return [Part(text, 1.0)]
    parts: list[Part] = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        match = WEIGHT.search(piece)
        part = Part(piece[: match.start()], float(match[1])) if match else Part(piece, 1.0)
        if not part.data or not part.weight:
            raise InputError(
                f"calibration_data: {piece!r} is not DATA or DATA:WEIGHT with a weight above 0; "
                f"write e.g. a.csv:0.7,b/:0.3"
            )
        if part.data in (other.data for other in parts):
            raise InputError(f"calibration_data: {part.data!r} is given twice; give it once")
        parts.append(part)
    if not parts:
        raise InputError("calibration_data: it names no data; write e.g. train.csv")
    return parts


def draw_mix(text: str, task: str, count: int, seed: int) -> list[Sample]:
    """`count` seeded samples of these data, in proportion to their weights.

    Of each, the training split is used if there is one, or else all samples. Data without
    pictures give texts, whatever the task. Data with too few samples give all that they have,
    with a warning.
    """
    if not count:
        raise InputError("calibration_samples: 0, but this quantizer needs calibration pairs")
    parts = parse_mix(text)
    pairs: list[Sample] = []
    for part, share in zip(parts, shares([part.weight for part in parts], count), strict=True):
        try:
            samples = _draw(task, part.data, share, seed) if share else []
        except InputError as error:
            raise InputError(f"calibration_data: {part.data}: {error}") from error
        if len(samples) < share:
            log.warning(
                "calibration: %d pairs from %s; %d were requested", len(samples), part.data, share
            )
        pairs += samples
    return pairs


def _draw(task: str, data: str, count: int, seed: int) -> list[Sample]:
    """`count` seeded samples of the task, or texts if the data have no pictures."""
    if (texts := find_texts(data)) is None:
        return find_source(task, data).training(count, seed)
    drawn = reservoir(enumerate(texts, 1), count, seed)
    if not drawn:
        raise InputError("data: it has no texts; fill in the column, or remove it from the mix")
    if cut := sum(len(text) > LONGEST for _, text in drawn):
        log.warning("calibration: %d texts of %s are cut to %d characters", cut, data, LONGEST)
    return [TextSample(str(number), "", (), text[:LONGEST]) for number, text in drawn]


def shares(weights: Sequence[float], count: int) -> list[int]:
    """Whole numbers in proportion to weights that add up to count, by largest remainders.

    >>> shares([0.7, 0.3], 5), shares([1, 1, 1], 128)
    ([4, 1], [43, 43, 42])
    """
    exact = [weight * count / sum(weights) for weight in weights]
    result = [int(value) for value in exact]
    order = sorted(range(len(exact)), key=lambda k: (result[k] - exact[k], k))
    for k in order[: count - sum(result)]:
        result[k] += 1
    return result
