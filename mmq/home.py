"""Where mmq keeps what it computed: studies, quantized weights, the embedded data."""

import os
from pathlib import Path


def home() -> Path:
    """$MMQ_HOME, or .mmq in the current folder."""
    return Path(os.environ.get("MMQ_HOME") or ".mmq").absolute()
