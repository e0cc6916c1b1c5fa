"""The embedded models and their task: tiny, trained, and rebuilt by `mmq train-embedded`."""

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"


def blip2_checkpoint() -> Path:
    """Folder of the embedded BLIP-2 (config, fp16 safetensors, processor)."""
    return ASSETS / "blip2"


def llava_checkpoint() -> Path:
    """Folder of the embedded LLaVA."""
    return ASSETS / "llava"


def retrieval_checkpoint() -> Path:
    """Folder of the embedded BLIP-2 retrieval model."""
    return ASSETS / "retrieval"
