"""A real PostgreSQL for one test: Debian's binaries, a temporary folder, a free port."""

import os
import shutil
import subprocess
import tempfile
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from repeatable import free_port

PASSWORD = "never-to-be-seen"


def binaries() -> Path | None:
    result = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not result and (path := shutil.which("initdb")):
        result = [Path(path)]
    return result[-1].parent if result else None


WAIT = ("-w", "-t", "600")  # seconds


class Server:
    """A database server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        programs = binaries()
        if programs is None:
            pytest.skip("no PostgreSQL on this machine")
        self.folder, self.bin, self.port = folder, programs, free_port()
        folder.chmod(0o777)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._call(
            "initdb", "-D", folder / "data", "-U", "mmq", "-A", "scram-sha-256", "--no-sync",
            f"--pwfile={secret}",
        )  # fmt: skip
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://mmq:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def _call(self, name: str, *arguments: object) -> None:
        command = [str(self.bin / name), *map(str, arguments)]
        if os.getuid() == 0:  # the server refuses root
            command = ["runuser", "-u", "nobody", "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def start(self) -> None:
        options = f"-p {self.port} -c fsync=off -c unix_socket_directories='' -h 127.0.0.1"
        data, log = self.folder / "data", self.folder / "log"
        self._call("pg_ctl", "-D", data, "-l", log, "-o", options, *WAIT, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", self.folder / "data", "-m", "immediate", *WAIT, "stop")


@contextmanager
def in_a_folder(kind):
    """A running server whose files are in a folder of its own, both removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mmq-server-"))  # pytest's own are closed to others
    try:
        server = kind(folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def postgres() -> AbstractContextManager[Server]:
    return in_a_folder(Server)
