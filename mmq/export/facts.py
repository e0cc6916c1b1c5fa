"""Facts about an exported folder in mmq_export.json, beside the weights."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mmq.contracts.vlm import AnswerProtocol, GenerationConfig
from mmq.errors import InputError
from mmq.system.disk import naming

FACTS = "mmq_export.json"
CARD = "README.md"
PARTIAL = ".partial"  # ends the name of a folder that is being written
UNVERIFIED = ".unverified"  # ends the name of a folder that failed its proof
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


def scored_protocol(facts: Mapping[str, Any]) -> AnswerProtocol:
    """The prompt and decoding that an exported model was scored with.

    InputError for a model that ranks pictures and texts.
    """
    options = facts.get("evaluator_options", {})
    if options.get("prompt") is None:
        raise InputError(
            f"task: {facts.get('task')} ranks pictures and texts; only models that generate text "
            f"can be served or measured"
        )
    names = {field.name for field in fields(GenerationConfig)}
    config = GenerationConfig(**{name: options[name] for name in names & set(options)})
    return AnswerProtocol(options["prompt"], config)


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of the format in a folder, by relative path."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    return {name: size for name, size in sizes.items() if name not in OWN}
