"""Facts about an exported folder in mmq_export.json, beside the weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmq.system.disk import naming

FACTS = "mmq_export.json"
CARD = "README.md"
OWN = (FACTS, CARD)  # files that mmq adds to those of the format


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write them; an OSError names the file."""
    with naming(folder / FACTS):
        (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a folder; {} if it has none."""
    try:
        facts = json.loads((folder / FACTS).read_bytes())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def trial_dtype(folder: Path) -> str:
    """The dtype that the trial computed in; float32 if the folder has no facts."""
    return str(read_facts(folder).get("dtype", "float32"))


def task(folder: Path) -> str:
    """The task that the model was scored on; vqa if the folder has no facts."""
    return str(read_facts(folder).get("task", "vqa"))


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of the format in a folder, by relative path."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    return {name: size for name, size in sizes.items() if name not in OWN}
