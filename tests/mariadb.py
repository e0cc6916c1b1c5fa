"""A real MariaDB for one test: Debian's binaries, a temporary folder, a free port."""

import os
import shutil
import subprocess
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
from postgres import PASSWORD, in_a_folder
from repeatable import free_port

PATH = os.environ["PATH"] + os.pathsep + "/usr/sbin"
USER = f"""\
create database if not exists mmq;
create user if not exists mmq@'%' identified by '{PASSWORD}';
grant all on mmq.* to mmq@'%';
"""


class MariaDb:
    """A database server that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        server, install = (
            shutil.which(name, path=PATH) for name in ("mariadbd", "mariadb-install-db")
        )
        if not server or not install:
            pytest.skip("no MariaDB on this machine: apt-get install mariadb-server")
        pytest.importorskip("pymysql", reason="pymysql is not installed: pip install 'mmq[mysql]'")
        self.folder, self.server, self.port = folder, server, free_port()
        folder.chmod(0o777)
        (folder / "user.sql").write_text(USER)
        as_root = ["--user=nobody"] if os.getuid() == 0 else []  # the server refuses root
        self.options = ["--no-defaults", f"--datadir={folder}/data", *as_root]
        subprocess.run(
            [install, *self.options, "--skip-test-db", "--auth-root-authentication-method=normal"],
            check=True,
            capture_output=True,
        )
        self.start()

    @property
    def url(self) -> str:
        return f"mysql://mmq:{PASSWORD}@127.0.0.1:{self.port}/mmq"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.server, *self.options, f"--port={self.port}", "--bind-address=127.0.0.1",
                 f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid",
                 f"--init-file={self.folder}/user.sql", "--innodb-flush-log-at-trx-commit=0",
                 "--innodb-buffer-pool-size=32M"],
                stdout=log,
                stderr=log,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        import pymysql

        end = time.monotonic() + 600
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(pymysql.Error):
                pymysql.connect(
                    host="127.0.0.1", port=self.port, user="mmq", password=PASSWORD,
                    database="mmq",
                ).close()  # fmt: skip
                return
            time.sleep(0.1)
        raise AssertionError(f"MariaDB did not start: {(self.folder / 'log').read_text()[-1500:]}")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def mariadb() -> AbstractContextManager[MariaDb]:
    return in_a_folder(MariaDb)
