"""Files that are read again: sealed when they are written, checked whenever they are used.

A seal is a hash of everything that a reader takes from a file, and of the name it was written
under, so that a file in another one's place does not pass. It protects against damage, such as a
bad sector, a cut file or a mixed-up copy, not against people.

What is damaged is computed again, with a warning, and stays in its place until then.
"""

import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmq.system.atomic import whole

log = logging.getLogger(__name__)
SEAL = re.compile(rb',?\s*"seal": "([0-9a-f]{64})"\s*\}\s*\Z')
HEAD = 65  # bytes in front of sealed bytes: a hash and a line end
CONTENTS = "its contents are not those that were stored"
# what opening a file raises whose header names types, shapes or places that do not exist
HEADER = (SafetensorError, RuntimeError, LookupError, ValueError, TypeError, AttributeError)
UNSEALED = "it has no checksum: it is cut, or an earlier version of mmq wrote it"


class Unusable(Exception):  # noqa: N818 - each says what is wrong
    """A stored file that cannot be used; its text says why."""


class Damaged(Unusable):
    """It does not hold what was stored."""


class NotReadable(Unusable):
    """It may hold what was stored, but it may not be read."""


def check_regular(path: Path) -> os.stat_result:
    """A file's status. FileNotFoundError without one, Unusable for what must not be opened.

    A pipe would be waited for, a device may never end.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(str(path)) from error
    except OSError as error:
        raise unusable(error) from error
    if not stat.S_ISREG(found.st_mode):
        raise Damaged("it is not a regular file")
    return found


def unusable(error: OSError) -> Unusable:
    """The reason why a file cannot be read, without its name."""
    said = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return NotReadable(f"it cannot be read: {said}")
    return Damaged(f"it cannot be read: {said}")


def read_bytes(path: Path) -> bytes:
    """A file's content. FileNotFoundError or Unusable where it cannot be had."""
    check_regular(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unusable(error) from error


def report(path: Path, problem: Unusable) -> None:
    """Warn of a file that is computed again."""
    kind = "is damaged" if isinstance(problem, Damaged) else "cannot be used"
    log.warning("%s %s (%s): computed again", path, kind, problem)


# --- JSON ----------------------------------------------------------------------------------------
def dump_json(facts: Mapping[str, Any], name: str, indent: int | None = None) -> str:
    """A mapping as JSON whose last member is its seal, over the text before it and a name."""
    text = json.dumps(facts, indent=indent)
    body = text[:-1].rstrip()
    comma = "" if body == "{" else ","
    return f'{body}{comma} "seal": "{_hash(body.encode(), name)}"}}'


def load_json(data: bytes, name: str) -> dict[str, Any]:
    """The mapping of `dump_json`. Damaged where the text is not that, or not of that name."""
    found = SEAL.search(data[-200:])
    if found is None:
        raise Damaged(UNSEALED if data.strip() else "it cannot be read: it is empty")
    body = data[: len(data) - len(found[0])]
    if _hash(body, name) != found[1].decode():
        raise Damaged(CONTENTS)
    facts: dict[str, Any] = json.loads(body + b"}")  # after the check: it is what we wrote
    return facts


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a mapping, sealed with the names of the file and of its folder."""
    with whole(path) as aside:
        aside.write_text(dump_json(facts, _name(path)))


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote; None where there is nothing, or, with a warning, no use of it."""
    try:
        return verified_json(path)
    except FileNotFoundError:
        return None
    except Unusable as problem:
        report(path, problem)
        return None


def verified_json(path: Path) -> dict[str, Any]:
    """As `read_json`; FileNotFoundError or Unusable instead of None."""
    return load_json(read_bytes(path), _name(path))


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _hash(body: bytes, name: str) -> str:
    return hashlib.sha256(name.encode() + b"\0" + body).hexdigest()


# --- bytes ---------------------------------------------------------------------------------------
def seal_bytes(body: bytes, name: str) -> bytes:
    """Bytes with their seal in front."""
    return f"{_hash(body, name)}\n".encode() + body


def unseal_bytes(data: bytes, name: str) -> bytes:
    """The bytes of `seal_bytes`; Damaged where they are not."""
    if not re.match(rb"[0-9a-f]{64}\n", data):
        raise Damaged(UNSEALED if data else "it cannot be read: it is empty")
    if _hash(data[HEAD:], name) != data[: HEAD - 1].decode():
        raise Damaged(CONTENTS)
    return data[HEAD:]


# --- tensors -------------------------------------------------------------------------------------
def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    name: str,
    about: Mapping[str, str] | None = None,
    beside: Mapping[str, str] | None = None,
    durable: bool = True,
) -> None:
    """Write tensors with texts about them, sealed with a name.

    beside: texts that may differ between files of the same content; sealed, but no part of the
    content's hash.
    """
    about, beside = dict(about or {}), dict(beside or {})
    content = tensor_hash(tensors, json.dumps([name, about], sort_keys=True))
    metadata = {**about, **beside, "sha256": content, "seal": _seal(content, about, beside)}
    metadata |= {"beside": json.dumps(sorted(beside))}
    with whole(path, durable) as aside:
        save_file(dict(tensors), aside, metadata=metadata)


def read_tensors(path: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and all texts of `write_tensors`; FileNotFoundError or Unusable without them."""
    tensors, metadata = _open(path, tensors=True)
    about = _check_texts(metadata)
    if tensor_hash(tensors, json.dumps([name, about], sort_keys=True)) != metadata["sha256"]:
        raise Damaged(CONTENTS)
    return tensors, metadata


def read_texts(path: Path) -> dict[str, str]:
    """The texts alone, checked by themselves."""
    _, metadata = _open(path, tensors=False)
    _check_texts(metadata)
    return metadata


def _open(path: Path, tensors: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys() if tensors else ()
            return {each: file.get_tensor(each) for each in names}, metadata
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unusable(error) from error
    except HEADER as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise Damaged(f"it cannot be read: {said}") from error


def _check_texts(metadata: Mapping[str, str]) -> dict[str, str]:
    """The texts that the content's hash covers; Damaged where any text was changed."""
    if not {"sha256", "seal", "beside"} <= metadata.keys():
        raise Damaged(UNSEALED)
    own = {k: v for k, v in metadata.items() if k not in ("sha256", "seal", "beside")}
    try:
        names = set(json.loads(metadata["beside"]))
    except (ValueError, TypeError) as error:
        raise Damaged(CONTENTS) from error
    about = {k: v for k, v in own.items() if k not in names}
    beside = {k: v for k, v in own.items() if k in names}
    if _seal(metadata["sha256"], about, beside) != metadata["seal"]:
        raise Damaged(CONTENTS)
    return about


def _seal(content: str, about: Mapping[str, str], beside: Mapping[str, str]) -> str:
    text = json.dumps([content, dict(about), dict(beside)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def tensor_hash(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """A hash of tensors with their names, types and shapes, and of a text about them."""
    sha = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
