"""What an exported folder says about itself: mmq_export.json, beside the weights."""

import json
from pathlib import Path
from typing import Any

FACTS = "mmq_export.json"


def read_facts(folder: Path) -> dict[str, Any]:
    """What was written when the folder was exported; {} where there is nothing."""
    try:
        facts = json.loads((folder / FACTS).read_bytes())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def trial_dtype(folder: Path) -> str:
    """The dtype that the trial computed in, float32 where the folder does not say."""
    return str(read_facts(folder).get("dtype", "float32"))
