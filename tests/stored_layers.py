"""A quantized layer, and the key that it is stored under."""

from mmq.artifacts.store import ArtifactKey
from mmq.tensors.quantized_weight import QuantizedLayer


def layer(weight):
    return QuantizedLayer(weight, 0.25, 0.125, "a note")


KEY = ArtifactKey(
    "model", "vit", "rtn", "mmq", 1, (("tensors", 1), ("quantization", 1)),
    (("group_size", 64), ("symmetric", False)), 4, 0, ("a",),
)  # fmt: skip
