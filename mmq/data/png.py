"""Pictures as text, for models in other processes."""

import base64
import io

from mmq.contracts.images import ImageRef


def png_base64(image: ImageRef) -> str:
    """A PNG file in base64 of the picture as every model reads it: upright, RGB, without loss."""
    file = io.BytesIO()
    image.open().save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def png_url(image: ImageRef) -> str:
    """The same as a data URI."""
    return f"data:image/png;base64,{png_base64(image)}"
