"""A folder of quantized blocks that several machines share, at a URL (MMQ_STORE).

    file:///mnt/team/mmq       a shared folder; a plain path is one, too
    s3://bucket/mmq            an object store: pip install 'mmq[s3]'
    gs://, abfs://, sftp://    with the file system of fsspec for it

A block appears whole or not at all, so no locks are needed: an object store makes an object
visible when its upload is complete, and elsewhere a complete file is renamed. The store that
downloads a block verifies it. A server that stops responding is waited for, as a study's database
is.
"""

import errno
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mmq.errors import InputError
from mmq.system.atomic import UNFINISHED, atomic_write

log = logging.getLogger(__name__)
VARIABLE = "MMQ_STORE"
EXTRAS = {"s3": "pip install 'mmq[s3]'", "gs": "pip install gcsfs", "abfs": "pip install adlfs"}
# protocols whose uploads become visible when they are complete; elsewhere a file is renamed
WHOLE_UPLOADS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "r2")
SUFFIX = ".safetensors"
T = TypeVar("T")
MAX_OUTAGE = 300  # seconds to wait for a store in the middle of a study
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between two attempts
# errors that pass, of the packages behind fsspec, by the names of their classes or base classes
NETWORK_ERRORS = ("ConnectionError", "TimeoutError", "HTTPClientError", "ClientConnectionError",
                  "ClientPayloadError", "ServiceRequestError", "TransportError")  # fmt: skip
# as s3fs reports a server that is overloaded or has failed
SERVER_ERRORS = (errno.EBUSY, errno.EIO, errno.EREMOTEIO)


class RemoteStore:
    """Files by name at a URL, read and written whole."""

    def __init__(self, url: str) -> None:
        """InputError for a protocol whose package is not installed, or an invalid URL."""
        import fsspec

        self.url = url.rstrip("/")
        protocol = url.partition("://")[0] if "://" in url else "file"
        try:
            # listings change under us: other machines write
            self.fs, self.root = fsspec.core.url_to_fs(
                self.url, **({} if protocol == "file" else {"use_listings_cache": False})
            )
        except (ImportError, ValueError) as error:
            hint = EXTRAS.get(protocol, "see the documentation of fsspec")
            raise InputError(
                f"{VARIABLE}: {protocol}:// cannot be used ({error}). For a shared folder write "
                f"its path; for this protocol: {hint}."
            ) from error
        self.whole_uploads = protocol in WHOLE_UPLOADS
        self.is_server = protocol not in ("file", "local", "memory")

    @classmethod
    def configured(cls) -> "RemoteStore | None":
        """The store at MMQ_STORE; None if it is not set."""
        url = os.environ.get(VARIABLE, "").strip()
        return cls(url) if url else None

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def check(self) -> None:
        """InputError if nothing can be written there; call it before expensive work."""
        name = f"{UNFINISHED}/probe-{uuid.uuid4().hex}"
        try:
            self.fs.makedirs(f"{self.root}/{UNFINISHED}", exist_ok=True)
            self.fs.pipe_file(self._path(name), b"mmq")
            self.fs.rm_file(self._path(name))
        except Exception as error:  # each file system has its own errors
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> InputError:
        return InputError(
            f"{VARIABLE}: {self.url} cannot be used: {type(error).__name__}: {error}. Check the "
            f"address and the credentials."
        )

    def _retry(self, call: Callable[[], T]) -> T:
        """The result of a call, repeated for five minutes while the server is unavailable."""
        start, pause, has_waited = time.monotonic(), FIRST_PAUSE, False
        while True:
            try:
                result = call()
            except Exception as error:
                late = time.monotonic() + pause > start + MAX_OUTAGE
                if late or not (self.is_server and is_transient(error)):
                    raise
                if not has_waited:
                    text = f"{type(error).__name__}: {error}"
                    log.warning("%s: %s is unavailable (%s); retrying.", VARIABLE, self.url, text)
                has_waited = True
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if has_waited:
                    seconds = time.monotonic() - start
                    log.warning("%s is available again after %.0f s.", self.url, seconds)
                return result

    def fetch(self, name: str, path: Path) -> bool:
        """Download a file to a path, where it appears complete; False if there is none."""
        try:
            return self._retry(lambda: self._fetch(name, path))
        except FileNotFoundError:  # it was removed meanwhile
            return False
        except Exception as error:
            raise self._unusable(error) from error

    def _fetch(self, name: str, path: Path) -> bool:
        if not self.fs.exists(self._path(name)):
            return False
        with atomic_write(path, durable=False) as temporary:
            self.fs.get_file(self._path(name), str(temporary))
        return True

    def store(self, name: str, path: Path) -> None:
        """Upload a file; other machines see it when it is complete."""
        try:
            self._retry(lambda: self._store(name, path))
        except Exception as error:
            raise self._unusable(error) from error

    def _store(self, name: str, path: Path) -> None:
        if self.whole_uploads:
            self.fs.put_file(str(path), self._path(name))
            return
        temporary = f"{UNFINISHED}/{uuid.uuid4().hex}-{name}"
        self.fs.makedirs(f"{self.root}/{UNFINISHED}", exist_ok=True)
        self.fs.put_file(str(path), self._path(temporary))
        self.fs.mv(self._path(temporary), self._path(name))

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        try:
            self.fs.rm_file(self._path(name))
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._unusable(error) from error

    def sizes(self) -> dict[str, int]:
        """The bytes of every complete block, by file name."""
        try:
            return {name: size for name, size in self._listed() if name.endswith(SUFFIX)}
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise self._unusable(error) from error

    def _listed(self) -> Iterator[tuple[str, int]]:
        details: list[dict[str, Any]] = self.fs.ls(self.root, detail=True)
        for entry in details:
            if entry["type"] == "file":
                yield str(entry["name"]).rpartition("/")[2], int(entry["size"] or 0)


def is_transient(error: BaseException) -> bool:
    """Whether waiting can fix an error of a file system: a lost connection, a failing server."""
    if any(kind.__name__ in NETWORK_ERRORS for kind in type(error).__mro__):
        return True
    return isinstance(error, OSError) and error.errno in SERVER_ERRORS
