"""Sealed files: hashed when they are written, verified whenever they are read.

A seal is a hash of a file's content and of its name, so that a file in another one's place is
rejected. It protects against damage, such as a bad sector, a truncated file or a mixed-up copy,
not against people.

Damaged files are computed again, with a warning, and stay in place until then.
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

from mmq.system.atomic import atomic_write

log = logging.getLogger(__name__)
SEAL = re.compile(rb',?\s*"seal": "([0-9a-f]{64})"\s*\}\s*\Z')
HEAD = 65  # length of the header of sealed bytes: a hash and a newline
CONTENTS = "its contents are not those that were stored"
# raised by opening a file whose header has invalid types, shapes or offsets
HEADER = (SafetensorError, RuntimeError, LookupError, ValueError, TypeError, AttributeError)
UNSEALED = "it has no checksum: it is truncated, or an earlier version of mmq wrote it"


class Unusable(Exception):  # noqa: N818 - subclasses name the problem
    """A stored file that cannot be used; the message is the reason."""


class Damaged(Unusable):
    """Its content is not what was stored."""


class NotReadable(Unusable):
    """It may be intact, but there is no permission to read it."""


def check_regular(path: Path) -> os.stat_result:
    """A file's status; FileNotFoundError if it is missing, Unusable if it is not regular.

    Reading a pipe could block, and a device may never end.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(str(path)) from error
    except OSError as error:
        raise unusable(error) from error
    if not stat.S_ISREG(status.st_mode):
        raise Damaged("it is not a regular file")
    return status


def unusable(error: OSError) -> Unusable:
    """The reason why a file cannot be read, without its name."""
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return NotReadable(f"it cannot be read: {reason}")
    return Damaged(f"it cannot be read: {reason}")


def read_bytes(path: Path) -> bytes:
    """A file's content; FileNotFoundError or Unusable if it cannot be read."""
    check_regular(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unusable(error) from error


def report(path: Path, problem: Unusable) -> None:
    """Warn that a file cannot be used and is computed again."""
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
    """The mapping that `dump_json` wrote; Damaged if the text or the name differs."""
    seal = SEAL.search(data[-200:])
    if seal is None:
        raise Damaged(UNSEALED if data.strip() else "it cannot be read: it is empty")
    body = data[: len(data) - len(seal[0])]
    if _hash(body, name) != seal[1].decode():
        raise Damaged(CONTENTS)
    facts: dict[str, Any] = json.loads(body + b"}")  # verified above: we wrote it
    return facts


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a mapping, sealed with the names of the file and of its folder."""
    with atomic_write(path) as temporary:
        temporary.write_text(dump_json(facts, _name(path)))


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote; None if it is missing or, with a warning, unusable."""
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
    """The bytes that `seal_bytes` sealed; Damaged if they differ."""
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

    beside: texts that may differ between files of the same content; sealed, but excluded from the
    content's hash.
    """
    about, beside = dict(about or {}), dict(beside or {})
    content = tensor_hash(tensors, json.dumps([name, about], sort_keys=True))
    metadata = {**about, **beside, "sha256": content, "seal": _seal(content, about, beside)}
    metadata |= {"beside": json.dumps(sorted(beside))}
    with atomic_write(path, durable) as temporary:
        save_file(_own_memory(tensors), temporary, metadata=metadata)


def _own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with copies of one that has several names: safetensors refuses those."""
    owners: dict[int, str] = {}
    return {
        name: tensor if owners.setdefault(tensor.data_ptr(), name) == name else tensor.clone()
        for name, tensor in tensors.items()
    }


def read_tensors(path: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and all texts that `write_tensors` wrote; FileNotFoundError or Unusable."""
    tensors, metadata = _open(path, tensors=True)
    about = _check_texts(metadata)
    if tensor_hash(tensors, json.dumps([name, about], sort_keys=True)) != metadata["sha256"]:
        raise Damaged(CONTENTS)
    return tensors, metadata


def read_texts(path: Path) -> dict[str, str]:
    """The texts alone, verified without the tensors."""
    _, metadata = _open(path, tensors=False)
    _check_texts(metadata)
    return metadata


def _open(path: Path, tensors: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys() if tensors else ()
            return {name: file.get_tensor(name) for name in names}, metadata
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unusable(error) from error
    except HEADER as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise Damaged(f"it cannot be read: {reason}") from error


def _check_texts(metadata: Mapping[str, str]) -> dict[str, str]:
    """The texts that the content's hash covers; Damaged if any text was changed."""
    if not {"sha256", "seal", "beside"} <= metadata.keys():
        raise Damaged(UNSEALED)
    texts = {k: v for k, v in metadata.items() if k not in ("sha256", "seal", "beside")}
    try:
        names = set(json.loads(metadata["beside"]))
    except (ValueError, TypeError) as error:
        raise Damaged(CONTENTS) from error
    about = {k: v for k, v in texts.items() if k not in names}
    beside = {k: v for k, v in texts.items() if k in names}
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
