"""Hashes of plain data and tensors."""

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """A short stable hash of plain data (dicts, lists, numbers, strings)."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
