"""Outputs of the stages before the language model: computed once per picture and allocation.

Vision features depend on the vision encoder's bits alone, connector outputs on those of the vision
encoder and the connector. Both are cached on disk under a key of everything they depend on:
allocations that share the upstream bits run only the downstream stages.
"""

import fcntl
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mmq.contracts.family import Stage
from mmq.contracts.images import ImageRef
from mmq.contracts.vlm import Progress
from mmq.errors import InputError
from mmq.system import sealed
from mmq.system.disk import GIB
from mmq.system.hashing import digest
from mmq.system.home import home
from mmq.system.versions import room_versions

if TYPE_CHECKING:
    from mmq.models.loading import LoadedModel

log = logging.getLogger(__name__)
DEFAULT_GIB = 10.0
Rows = Callable[[Sequence[ImageRef]], Tensor]  # pictures -> their outputs, one row per picture


def cache_limit() -> int:
    """Maximum size of the cache in bytes: $MMQ_CACHE_GIB, or 10 GiB; 0 caches nothing."""
    text = os.environ.get("MMQ_CACHE_GIB") or str(DEFAULT_GIB)
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise InputError(f"MMQ_CACHE_GIB: {text!r} is not a number of GiB, 0 or more")
    return int(min(limit * GIB, sys.maxsize))  # inf, too


class StageCache:
    """An LRU cache of tensors on disk, with a size limit.

    Safe for several processes that share the folder: files are written atomically, only one
    process at a time evicts files while no other opens one, and a removed file stays readable for
    processes that have it open.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.root, self.limit, self.warned = root, limit, False

    def get(self, key: str) -> Tensor | None:
        """A cached tensor, mapped from its file; None if it is not cached (any more)."""
        path = self._path(key)
        try:
            # safetensors opens a file twice; it must not be removed in between
            with self._locked(fcntl.LOCK_SH):
                tensors, _ = sealed.read_tensors(path, key)
                os.utime(path)  # mark as recently used
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(error)
            return None
        except sealed.Unusable as problem:
            sealed.report(path, problem)
            with suppress(OSError):
                path.unlink()
            return None
        return tensors["rows"]

    def put(self, key: str, rows: Tensor) -> None:
        """Cache a tensor, unless it exceeds the cache's limit or the disk rejects it."""
        if rows.nbytes > self.limit:
            return
        tensors = {"rows": rows.cpu().contiguous()}
        try:
            # need not be durable: the seal detects damage
            sealed.write_tensors(self._path(key), tensors, key, durable=False)
            self._make_room()
        except (OSError, SafetensorError) as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self.warned:
            log.warning("Cannot cache outputs of stages in %s: %s", self.root, error)
        self.warned = True

    def _path(self, key: str) -> Path:
        return self.root / f"{key}.safetensors"

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with (self.root / ".lock").open("w") as file:
            fcntl.flock(file, how)
            yield

    def _make_room(self) -> None:
        with self._locked(fcntl.LOCK_EX):
            files = []
            for path in self.root.glob("*.safetensors"):
                with suppress(FileNotFoundError):  # removed as damaged
                    status = path.stat()
                    files.append((status.st_mtime_ns, status.st_size, path))
            excess = sum(size for _, size, _ in files) - self.limit
            for _, size, path in sorted(files):
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= size


def default_cache() -> StageCache | None:
    """The cache in mmq's home; None where $MMQ_CACHE_GIB is 0."""
    limit = cache_limit()
    return StageCache(home() / "stages", limit) if limit else None


def encode(
    model: "LoadedModel",
    images: Sequence[ImageRef],
    last: str,
    batch_size: int,
    progress: Progress,
) -> Rows:
    """A function from pictures to the outputs of stage `last`, from the cache if possible.

    Pictures are processed in chunks of `batch_size`, in the given order, the same for every
    allocation. Without a cache, or if the outputs would fill more than half of it, they are
    computed on demand.
    """
    stages = _up_to(model, last)
    unique = list(dict.fromkeys(images))
    chunks = [unique[k : k + batch_size] for k in range(0, len(unique), batch_size)]
    keys = _keys(model, stages, chunks)
    if keys is None or model.stage_cache is None:
        return lambda images: _compute(model, stages, images)
    last_cached = max(k for k, stage in enumerate(stages) if stage.cached)
    cached: dict[ImageRef, tuple[Tensor, int]] = {}
    for number, chunk in enumerate(progress(chunks, last)):
        rows = _chunk(model, stages[: last_cached + 1], chunk, keys[number])
        if rows.nbytes * len(chunks) > model.stage_cache.limit / 2:
            log.info("Outputs of %s are too large for the cache: see MMQ_CACHE_GIB", last)
            return lambda images: _compute(model, stages, images)
        cached.update({image: (rows, k) for k, image in enumerate(chunk)})

    def rows_of(images: Sequence[ImageRef]) -> Tensor:
        rows = torch.stack([cached[image][0][cached[image][1]] for image in images])
        return run_stages(model, stages[last_cached + 1 :], rows.to(model.device))

    return rows_of


def _up_to(model: "LoadedModel", last: str) -> list[Stage]:
    names = [stage.name for stage in model.family.stages]
    return list(model.family.stages[: names.index(last) + 1])


def _keys(
    model: "LoadedModel", stages: Sequence[Stage], chunks: Sequence[Sequence[ImageRef]]
) -> list[list[str]] | None:
    """One key per chunk and stage; None if the model's weights are of unknown origin."""
    facts, states = [], []
    for stage in stages:
        used = (*stage.components, "projector")  # that one is in any stage
        for component in (name for name in used if name in model.components):
            state = model.states.get(component)
            if state is None:
                return None
            states.append((component, state))
        facts.append([stage.name, list(states)])
    packages = [version(name) for name in ("torch", "transformers")]
    computed_by = [packages, model.family.identity(), room_versions("data", "models")]
    common = [model.fingerprint, model.device, computed_by]
    keys = []
    for chunk in chunks:
        pictures = [image.digest() for image in chunk]
        keys.append([f"{fact[0]}-{digest([common, fact, pictures])}" for fact in facts])
    return keys


def _chunk(
    model: "LoadedModel", stages: Sequence[Stage], chunk: Sequence[ImageRef], keys: Sequence[str]
) -> Tensor:
    """The last stage's outputs of some pictures, from the latest stage that is cached."""
    cache = model.stage_cache
    assert cache is not None
    start, rows = 0, None
    for k in range(len(stages), 0, -1):
        if stages[k - 1].cached and (rows := cache.get(keys[k - 1])) is not None:
            start = k
            break
    if rows is not None and start == len(stages):
        return rows
    values = _pixels(model, chunk) if rows is None else rows.to(model.device)
    for k in range(start, len(stages)):
        values = run_stages(model, stages[k : k + 1], values)
        if stages[k].cached:
            cache.put(keys[k], values)
    return values.cpu()


def _compute(model: "LoadedModel", stages: Sequence[Stage], images: Sequence[ImageRef]) -> Tensor:
    """The outputs of some pictures, each computed once, without the cache."""
    unique = list(dict.fromkeys(images))
    rows = run_stages(model, stages, _pixels(model, unique))
    position = {image: k for k, image in enumerate(unique)}
    return rows[[position[image] for image in images]]


def _pixels(model: "LoadedModel", images: Sequence[ImageRef]) -> Tensor:
    return model.family.pixels(model, [image.open() for image in images])


@torch.no_grad()
def run_stages(model: "LoadedModel", stages: Sequence[Stage], values: Tensor) -> Tensor:
    """The outputs of these stages, run in order on the first one's inputs."""
    module: Any = model.module
    for stage in stages:
        values = stage.compute(module, values)
    return values
