"""Limits on the size of pictures that a model reads: `--min-pixels` and `--max-pixels`."""

from typing import Any

from mmq.contracts.vlm import InputOptions
from mmq.errors import InputError

SIDES = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}


def limit_pixels_(processor: Any, options: InputOptions) -> None:
    """Set the limits of a processor's pictures; InputError if it scales all to one size."""
    limits = {name: getattr(options, name) for name in SIDES if getattr(options, name)}
    if not limits:
        return
    images = processor.image_processor
    if not all(_takes(images, name) for name in limits):
        raise InputError(
            f"{', '.join(limits)}: {type(images).__name__} has no pixel limits; it scales "
            f"every picture by its own rule ({_rule(images)}). Remove the option"
        )
    sides = {side: images.size[side] for side in SIDES.values()}
    sides |= {SIDES[name]: value for name, value in limits.items()}
    low, high = sides.values()
    images.size = type(images.size)(**sides)
    for name, value in limits.items():
        if hasattr(images, name):  # before transformers 5 they count, not the size
            setattr(images, name, value)
    if low > high:
        raise InputError(f"min_pixels: {low} is more than max_pixels ({high}); give both")


def _takes(images: Any, name: str) -> bool:
    """Whether an image processor has this limit, which its size holds as areas."""
    declared = getattr(getattr(images, "valid_kwargs", None), "__annotations__", {})
    sides = getattr(images, "size", None) or {}
    has_sides = all(side in sides and sides[side] for side in SIDES.values())
    return has_sides and (hasattr(images, name) or name in declared)


def _rule(images: Any) -> str:
    size = getattr(images, "size", None)
    return f"size {dict(size)}" if size else "no size"
