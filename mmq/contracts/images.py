"""Pictures."""

from pathlib import Path

ImageRef = Path
