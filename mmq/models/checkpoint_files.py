"""The files of a model's folder: which ones count, checks for damage, and their hash.

All files count except a short list of names that no version of transformers reads: counting one
too many costs a repeated trial, missing one gives a wrong result.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmq.errors import InputError
from mmq.models.checkpoint_config import check_settings
from mmq.system.regular_file import MIB, open_regular, other_kind
from mmq.system.strict_json import load_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LARGEST_JSON = 16 * MIB  # larger files are not checked in advance; some tokenizers are
MOST_FILES = 10_000
LFS_POINTER = b"version https://git-lfs"
INERT_FILES = re.compile(
    r"(readme|licen[sc]e|notice|copying|changelog|citation)[\w-]*(\.(txt|md|rst|cff))?"
    r"|.*\.(md|rst|png|jpe?g|gif|webp|svg|pdf|mp4|log|py|pyc)"
    r"|consolidated[\w.-]*\.safetensors",  # Mistral's own format, beside transformers'
    re.IGNORECASE,
)
INERT_FOLDERS = {"original", "__pycache__"}
OTHER_WEIGHTS = (  # not loaded if there are safetensors
    *(".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".onnx_data", ".h5", ".msgpack"),
    *(".ot", ".tflite", ".pb", ".mlmodel", ".npz", ".pkl"),
)
READ_JSON = re.compile(
    r"(.*config|.*\.index|tokenizer|special_tokens_map|added_tokens|vocab|chat_template|mmq)\.json"
)


def check_folder(folder: Path) -> None:
    """InputError for a pipe, an LFS pointer or broken JSON in a model's folder."""
    for name, path in counted_files(folder):
        with open_regular(path, "model") as file:
            start = file.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise InputError(
                f"model: {path} is a Git LFS pointer, not the file itself; "
                f"run `git lfs pull` in that folder, or download the model again"
            )
        if READ_JSON.fullmatch(name) and path.stat().st_size <= LARGEST_JSON:
            facts = load_json(path, "model", LARGEST_JSON)
            if name.endswith(("config.json", ".index.json")) and not isinstance(facts, dict):
                kind = type(facts).__name__
                raise InputError(f"model: {path} is a JSON {kind}, not an object")
            if name.endswith("config.json"):
                check_settings(path, facts)


def counted_files(folder: Path) -> list[tuple[str, Path]]:
    """All files that can change a model's inputs or outputs, by name inside the folder, sorted.

    Includes the shards that an index names, wherever they are. InputError for a file that is not
    regular: a pipe, a socket, a broken link.
    """
    safe = any(folder.glob("*.safetensors*"))  # or an index
    files: dict[str, Path] = {}
    for name, path in _walk(folder, "", (os.path.realpath(folder),)):
        if not (safe and path.suffix.lower() in OTHER_WEIGHTS):
            files[name] = path
            if len(files) > MOST_FILES:
                raise InputError(
                    f"model: {folder} has more than {MOST_FILES} files; give a folder with one "
                    f"checkpoint and nothing else"
                )
    shards = shard_names(folder)
    files |= {name: folder / name for name in shards if name not in files}
    for path in files.values():
        _check_kind(path)
    return sorted(files.items(), key=lambda item: Path(item[0]))


def _check_kind(path: Path) -> None:
    try:
        kind = other_kind(path)
    except OSError as error:
        raise InputError(
            f"model: {path} cannot be read ({error.strerror}); is it a broken link, or "
            f"a shard that was not downloaded?"
        ) from error
    if kind:
        raise InputError(f"model: {path} is {kind}; give a regular file")


def _walk(folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Files below a folder with their names; links to a parent folder are not followed."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"model: {folder} cannot be read ({error.strerror})") from error
    for name in names:
        path = folder / name
        if name.startswith("."):
            continue
        if path.is_dir():
            real = os.path.realpath(path)
            if READ_JSON.fullmatch(name) or name.endswith(".safetensors"):
                yield f"{prefix}{name}", path  # rejected later: a folder in a file's place
            elif name not in INERT_FOLDERS and real not in above:
                yield from _walk(path, f"{prefix}{name}/", (*above, real))
        elif not INERT_FILES.fullmatch(name):
            yield f"{prefix}{name}", path


def weight_map(folder: Path) -> dict[str, str]:
    """The file of each tensor by the index; {} without an index or beside a single file."""
    path = folder / INDEX
    if (folder / SINGLE).exists() or not os.path.lexists(path):
        return {}
    facts: Any = load_json(path, "model")
    shard_of = facts.get("weight_map") if isinstance(facts, dict) else None
    if not isinstance(shard_of, dict) or not all(
        isinstance(v, str) and v for v in shard_of.values()
    ):
        raise InputError(f'model: {path} has no "weight_map" from tensors to file names')
    if not shard_of:
        raise InputError(f'model: the "weight_map" of {path} is empty')
    for name in shard_of.values():
        if not name.endswith(".safetensors"):  # transformers would read it as a pickle
            raise InputError(f"model: {path} names {name}, which is not a .safetensors file")
    return shard_of


def shard_names(folder: Path) -> list[str]:
    """The files that an index names, sorted; InputError for a missing one."""
    names = sorted(set(weight_map(folder).values()))
    for name in names:
        if not os.path.lexists(folder / name):
            raise InputError(
                f"Model {str(folder)!r} cannot be loaded: {INDEX} names {name}, which is "
                f"missing; download or copy that shard too"
            )
    return names


def hash_folder(folder: Path, sha: Any) -> None:
    """Add the name and content of every counted file to a hash."""
    for name, path in counted_files(folder):
        sha.update(name.encode("utf-8", "surrogateescape"))
        with open_regular(path, "model") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()  # type: ignore[arg-type]
        sha.update(digest)
