"""Resolve a model's name to its folder or hub repository, configuration and fingerprint."""

import hashlib
from pathlib import Path
from typing import Any, TypeVar

from mmq.contracts import registry
from mmq.contracts.options import fill_unset
from mmq.errors import InputError, unknown
from mmq.models.checkpoint_config import (
    FULL_PRECISION,
    check_facts,
    check_filled,
    check_side_files,
)
from mmq.models.checkpoint_errors import reading
from mmq.models.checkpoint_files import INDEX, LARGEST_JSON, check_folder, hash_folder
from mmq.system.strict_json import load_json

E = TypeVar("E")
PROTOCOL_EXAMPLE = '{"protocol": {"vqa": {"num_beams": 1}}}'


def _bundled(name: str) -> str | None:
    for checkpoint in registry.installed("checkpoint"):
        if checkpoint.name == name:
            return str(registry.load("checkpoint", name)())
    return None


def locate(name: str, allow_pickle: bool = False) -> str:
    """Folder of a bundled or local model, or the hub name itself; InputError if it is neither.

    A folder gets quick checks: InputError for an adapter, a quantized checkpoint, a pipe, a Git
    LFS pointer or broken JSON.
    """
    bundled = _bundled(name)
    if bundled:
        return bundled
    path = Path(name)
    if path.is_dir():
        check_side_files(path)
        if not (path / "config.json").exists():
            raise InputError(f"model: the folder {name} has no config.json{_gguf(path)}")
        safe = any(path.glob("*.safetensors")) or (path / INDEX).exists()
        if not safe and not (allow_pickle and any(path.glob("*.bin"))):
            raise InputError(
                f"model: the folder {name} has no .safetensors file, and pickled weights are not "
                f"loaded; convert them with save_pretrained(..., safe_serialization=True), or "
                f"give --allow-pickle if you trust their source{_gguf(path)}"
            )
        check_folder(path)
        return name
    if path.suffix == ".gguf":
        raise InputError(f"model: {name} is a GGUF file, which is quantized; {FULL_PRECISION}")
    looks_like_a_path = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_like_a_path:
        names = ", ".join(c.name for c in registry.installed("checkpoint"))
        raise InputError(
            f"Unknown model {name!r}: no such folder or bundled model. Give a folder, a bundled "
            f"model ({names}) or a hub name (e.g. Salesforce/blip2-opt-2.7b)."
        )
    return name


def _gguf(folder: Path) -> str:
    files = sorted(path.name for path in folder.glob("*.gguf"))
    return f". Its {files[0]} is a GGUF file; {FULL_PRECISION}" if files else ""


def read_config(source: str) -> Any:
    """The transformers configuration of a folder, a hub name or a config.json.

    InputError if it says that the weights are quantized, or if it describes no valid model.
    """
    from transformers import AutoConfig

    path = Path(source)
    with reading(
        f"Model {source!r}: its configuration cannot be read",
        "Give a bundled model, a folder with a config.json, or a hub name that this machine can "
        "reach.",
    ):
        file = path if path.is_file() else _config_file(source)
        facts = load_json(file, "model", LARGEST_JSON)
        check_facts(file, facts)
        if path.is_file():
            config = AutoConfig.for_model(**facts)
        else:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        check_filled(file, facts, config)
        return config


def _config_file(source: str) -> Path:
    from transformers.utils import find_adapter_config_file
    from transformers.utils.hub import cached_file

    if Path(source).is_dir():
        return Path(source) / "config.json"
    path = Path(cached_file(source, "config.json"))
    if find_adapter_config_file(source):
        raise InputError(
            f"model: {source} is an adapter (it has an adapter_config.json); merge it into its "
            f"base model with merge_and_unload(), save it with save_pretrained(), and give that "
            f"folder"
        )
    return path


def read_protocol(source: str, task: str) -> dict[str, Any]:
    """A checkpoint's own evaluator options for a task, which differ from its family's protocol.

    A checkpoint's folder may have an mmq.json: {"protocol": {"retrieval": {"k": 16}}}. Its values
    are the defaults of evaluator options that are not set.
    """
    path = Path(source) / "mmq.json"
    if not path.exists():
        return {}
    facts = load_json(path, "model", LARGEST_JSON)
    tasks = facts.get("protocol") if isinstance(facts, dict) and len(facts) == 1 else None
    if not isinstance(tasks, dict) or not all(isinstance(v, dict) for v in tasks.values()):
        raise InputError(f"model: {path} should look like {PROTOCOL_EXAMPLE}")
    evaluators = [plugin.name for plugin in registry.installed("evaluator")]
    for name in tasks:
        if name not in evaluators:
            raise InputError(f"model: {path}: {unknown('evaluator', name, evaluators)}")
    protocol: dict[str, Any] = tasks.get(task, {})
    return protocol


def with_checkpoint_options(evaluator: E, source: str, name: str) -> E:
    """The evaluator with a checkpoint's values for unset options.

    InputError for an unknown option. name: of the evaluator plugin.
    """
    protocol = read_protocol(source, name)
    try:
        return fill_unset(evaluator, protocol)
    except InputError as error:
        raise InputError(f"model: {Path(source) / 'mmq.json'}: {error}") from error


def fingerprint(source: str, config: Any, dtype: str) -> str:
    """A hash of the weights and settings: the hub's commit, or the folder's contents."""
    path = Path(source)
    sha = hashlib.sha256(dtype.encode())
    if path.is_dir():
        hash_folder(path, sha)
    else:
        sha.update(f"{source}@{_commit(source, config)}".encode())
    return sha.hexdigest()[:20]


def _commit(source: str, config: Any) -> str:
    """The hub commit of a configuration; InputError if it is unknown."""
    if commit := getattr(config, "_commit_hash", None):
        return str(commit)
    from transformers.utils.hub import cached_file, extract_commit_hash

    file = cached_file(source, "config.json", _raise_exceptions_for_missing_entries=False)
    if commit := extract_commit_hash(file, None):
        return str(commit)
    raise InputError(
        f"model: the hub commit of {source} is unknown, so its results could be mistaken for "
        f"those of another commit; download it (hf download {source} --local-dir FOLDER) and "
        f"give the folder"
    )
