"""A picture to ask models about where there are no samples."""

import io

from PIL import Image

from mmq.contracts.images import BytesImage


def sample_picture(side: int) -> BytesImage:
    """A square picture of `side` pixels per side, with gradients of all colours."""
    gradient = Image.linear_gradient("L").resize((side, side))
    channels = (gradient, gradient.rotate(90), gradient.rotate(180))
    file = io.BytesIO()
    Image.merge("RGB", channels).save(file, "PNG")
    return BytesImage("a generated picture", file.getvalue())
