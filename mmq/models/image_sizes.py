"""Pictures that a checkpoint's image processor refuses, found before any weight is loaded."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from PIL import Image
from tqdm import tqdm

from mmq.contracts.images import ImageRef
from mmq.contracts.samples import Sample
from mmq.data.image_checks import sample_of_each
from mmq.errors import InputError

log = logging.getLogger(__name__)
ImageProcessor = Callable[..., Any]
ORDINARY = (640, 480)  # a size that every image processor takes


def check_sizes(
    samples: Iterable[Sample], processor: ImageProcessor | None, quiet: bool = False
) -> None:
    """InputError naming the pictures, with a sample, whose size the processor refuses.

    Qwen's processors, for one, refuse a picture that is over 200 times as long as it is wide.
    Every distinct size is tried once, on a blank picture. None: the family has no processor
    without its model, and nothing is checked.
    """
    if processor is None:
        return
    users = sample_of_each(samples)
    by_size: dict[tuple[int, int], list[ImageRef]] = {}
    for image in users:
        by_size.setdefault(image.size(), []).append(image)
    refused: dict[ImageRef, str] = {}
    for size, images in tqdm(
        sorted(by_size.items()), desc="check image sizes", leave=False, disable=quiet
    ):
        if reason := _refusal(processor, size):
            refused.update(dict.fromkeys(images, reason))
    if not refused:
        return
    if reason := _refusal(processor, ORDINARY):
        log.warning("The sizes of the pictures cannot be checked for this model: %s", reason)
        return
    image, reason = next(iter(refused.items()))
    width, height = image.size()
    more = f" and {len(refused) - 1} other pictures" if len(refused) > 1 else ""
    raise InputError(
        f"image: the model's image processor refuses {image.name} ({width} x {height} pixels: "
        f"{reason}){more}; it belongs to the sample {users[image]}. Crop it, or remove its samples"
    )


def _refusal(processor: ImageProcessor, size: tuple[int, int]) -> str:
    """Why the processor does not take a picture of this size; "" if it does."""
    try:
        processor(images=[Image.new("RGB", size)], return_tensors="pt")
    except Exception as error:  # processors raise whatever their arithmetic leads to
        return str(error) or type(error).__name__
    return ""
