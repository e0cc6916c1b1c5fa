"""Quantized blocks on disk: content-addressed, written atomically."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mmq.artifacts.remote import RemoteStore
from mmq.errors import InputError
from mmq.system import sealed
from mmq.system.hashing import digest
from mmq.system.home import home
from mmq.system.mounts import network_file_system
from mmq.system.sealed import Unusable
from mmq.tensors.quantized_weight import QuantizedLayer, QuantizedWeight

CODE_ROOMS = ("tensors", "quantization")  # codes are reused only if their versions match
MEASURED = ("relative_error", "output_error", "note", "folds_into")


@dataclass(frozen=True, slots=True)
class ArtifactKey:
    """Everything that the codes of a component's block depend on."""

    model: str
    component: str
    quantizer: str
    quantizer_distribution: str
    quantizer_version: int
    versions: tuple[tuple[str, int], ...]  # of mmq's packages that compute codes
    options: tuple[tuple[str, Any], ...]
    bits: int
    block: int
    layers: tuple[str, ...]  # their paths differ between versions of transformers
    calibration: str | None = None

    @property
    def name(self) -> str:
        """File name of the artifact, without its suffix."""
        part = f"{self.component}-{self.block}"
        return f"{part}-{self.quantizer}-{self.bits}bit-{digest(asdict(self))}"


class Store:
    """A folder of quantized blocks, and the remote one that machines share, if any.

    remote: blocks that this machine lacks are fetched from there, and new ones are copied there.
    """

    def __init__(self, root: Path, remote: RemoteStore | None = None) -> None:
        self.root, self.remote = root, remote
        self._checked: dict[Path, tuple[int, int, int]] = {}  # intact files, as they were then
        self._reported: dict[Path, str] = {}  # what is wrong with files

    @classmethod
    def open(cls) -> "Store":
        """The store in mmq's home, shared at MMQ_STORE if that is set."""
        return cls(home() / "store", RemoteStore.configured())

    def has(self, key: ArtifactKey) -> bool:
        """Whether this artifact is stored and intact; warns if it is damaged.

        A file is read in full once, until it changes; `get` checks it every time. One that only
        the other machines have is fetched.
        """
        path = self.path(key)
        return self._has(path) or (self._fetch(path) and self._has(path))

    def _fetch(self, path: Path) -> bool:
        return self.remote is not None and self.remote.fetch(path.name, path)

    def _has(self, path: Path) -> bool:
        try:
            status = sealed.check_regular(path)
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
            if self._checked.get(path) == state:
                return True
            sealed.read_tensors(path, path.stem)
        except FileNotFoundError:
            return False
        except Unusable as problem:
            self._report(path, problem)
            return False
        self._checked[path] = state
        return True

    def get(self, key: ArtifactKey) -> dict[str, QuantizedLayer] | None:
        """Layers by name; None if it was never stored or, with a warning, if it is damaged."""
        path = self.path(key)
        try:
            tensors, texts = self._read(path)
        except FileNotFoundError:
            return None
        except Unusable as problem:
            self._checked.pop(path, None)
            self._report(path, problem)
            return None
        facts = json.loads(texts["layers"])
        parts: dict[str, dict[str, Any]] = {name: {} for name in facts}
        for full, tensor in tensors.items():
            layer, _, part = full.rpartition("/")
            parts[layer][part] = tensor
        return {
            name: QuantizedLayer(QuantizedWeight.from_tensors(parts[name]), **measured)
            for name, measured in facts.items()
        }

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
        """A block's tensors and texts; fetched if the file here is missing or damaged."""
        try:
            return sealed.read_tensors(path, path.stem)
        except (FileNotFoundError, Unusable):
            if not self._fetch(path):
                raise
        return sealed.read_tensors(path, path.stem)

    def seconds(self, key: ArtifactKey) -> float | None:
        """Seconds it took to compute a stored artifact; None if unknown."""
        path = self.path(key)
        try:
            spent = sealed.read_texts(path).get("seconds")
        except FileNotFoundError:
            return None
        except Unusable as problem:
            self._report(path, problem)
            return None
        return None if spent is None else float(spent)

    def _report(self, path: Path, problem: Unusable) -> None:
        """Warn about a file once: it stays in place until it is computed again."""
        if self._reported.get(path) != str(problem):
            self._reported[path] = str(problem)
            sealed.report(path, problem)

    def put(
        self, key: ArtifactKey, layers: Mapping[str, QuantizedLayer], seconds: float | None = None
    ) -> None:
        """Store a block's layers; a killed process leaves no half-written artifact."""
        tensors = {
            f"{name}/{part}": tensor.cpu()
            for name, layer in layers.items()
            for part, tensor in layer.weight.to_tensors().items()
        }
        facts = {
            name: {part: getattr(layer, part) for part in MEASURED}
            for name, layer in layers.items()
        }
        about = {"key": json.dumps(asdict(key)), "layers": json.dumps(facts)}
        # not part of the content's hash: the same artifact may take longer
        beside = {} if seconds is None else {"seconds": f"{seconds:.6f}"}
        path = self.path(key)
        sealed.write_tensors(path, tensors, path.stem, about, beside)
        if self.remote is not None:
            self.remote.store(path.name, path)
        self._reported.pop(path, None)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Lock out other processes that compute under this name; a killed one leaves no lock."""
        if kind := network_file_system(self.root):
            raise InputError(
                f"MMQ_HOME: {self.root} is on a network file system ({kind}), where locks do not "
                f"exclude other machines. Set MMQ_HOME to a local folder, and MMQ_STORE to the "
                f"shared one."
            )
        path = self.root / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def entries(self) -> "list[Entry]":
        """Everything that is stored, by name; unreadable files have a `problem`."""
        entries = []
        for path in sorted(self.root.glob("*.safetensors")):
            with suppress(FileNotFoundError):  # it was removed meanwhile
                entries.append(_entry(path))
        return entries

    def path(self, key: ArtifactKey) -> Path:
        """Where an artifact is, or would be."""
        return self.root / f"{key.name}.safetensors"


@dataclass(frozen=True, slots=True)
class Entry:
    """An artifact's file: the fields of its key, its size in bytes, and what is wrong with it."""

    path: Path
    key: Mapping[str, Any]
    size: int
    modified: float  # seconds since the epoch
    problem: str = ""

    def verify(self) -> str:
        """Read the whole file; what is wrong with it, or "" if it is intact."""
        try:
            sealed.read_tensors(self.path, self.path.stem)
        except FileNotFoundError:
            return "it no longer exists"
        except Unusable as problem:
            return str(problem)
        return ""


def _entry(path: Path) -> Entry:
    status = path.lstat()
    try:
        key, problem = json.loads(sealed.read_texts(path)["key"]), ""
    except (FileNotFoundError, KeyError, ValueError) as error:
        key, problem = {}, f"it cannot be read ({type(error).__name__})"
    except Unusable as error:
        key, problem = {}, str(error)
    return Entry(path, key, status.st_size, status.st_mtime, problem)
