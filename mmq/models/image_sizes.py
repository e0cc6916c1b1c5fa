"""Find pictures that a checkpoint's image processor rejects, before loading weights."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from PIL import Image

from mmq.contracts.images import ImageRef
from mmq.contracts.samples import Sample
from mmq.data.image_checks import sample_of_each
from mmq.errors import InputError
from mmq.system.progress import progress_bar
from mmq.system.versions import major_version

log = logging.getLogger(__name__)
ImageProcessor = Callable[..., Any]
ORDINARY = (640, 480)  # a size that every image processor accepts
CHANNELS = (1, 3)  # heights that transformers 4 takes for the number of colours


def check_sizes(
    samples: Iterable[Sample], processor: ImageProcessor | None, quiet: bool = False
) -> None:
    """InputError for pictures whose size the processor rejects, with one sample.

    Qwen's processors, for example, reject a picture over 200 times as long as it is wide. Every
    distinct size is tried once, on a blank picture. processor: None if the family has none without
    its model; then nothing is checked.
    """
    if processor is None:
        return
    users = sample_of_each(samples)
    by_size: dict[tuple[int, int], list[ImageRef]] = {}
    for image in users:
        by_size.setdefault(image.size(), []).append(image)
    refused: dict[ImageRef, str] = {}
    for size, images in progress_bar(
        sorted(by_size.items()), desc="check image sizes", leave=False, quiet=quiet
    ):
        if reason := _refusal(processor, size):
            refused.update(dict.fromkeys(images, reason))
    if not refused:
        return
    if reason := _refusal(processor, ORDINARY):
        log.warning("Cannot check the sizes of the pictures for this model: %s", reason)
        return
    image, reason = next(iter(refused.items()))
    width, height = image.size()
    others = f" and {len(refused) - 1} other pictures" if len(refused) > 1 else ""
    raise InputError(
        f"image: the model's image processor rejects {image.name} ({width} x {height} pixels: "
        f"{reason}){others}; it belongs to the sample {users[image]}. Crop it, or remove its "
        f"samples"
    )


def _refusal(processor: ImageProcessor, size: tuple[int, int]) -> str:
    """Why the processor rejects a picture of this size; "" if it does not."""
    if size[1] in CHANNELS and major_version("transformers") < 5:
        return "transformers before version 5 reads its rows as colours"
    try:
        processor(images=[Image.new("RGB", size)], return_tensors="pt")
    except Exception as error:  # processors raise almost anything
        return str(error) or type(error).__name__
    return ""
