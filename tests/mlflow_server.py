"""A real MLflow server that can be killed and started again."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from repeatable import free_port


class MlflowServer:
    """On SQLite unless another store is given, with its artifacts beside it."""

    def __init__(self, folder: Path, store: str = "") -> None:
        self.folder, self.port = folder, free_port()
        self.store = store or f"sqlite:///{folder}/server.db"
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        arguments = ["--backend-store-uri", self.store, "--port", str(self.port), "--workers", "1"]
        arguments += ["--artifacts-destination", str(self.folder / "artifacts")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *arguments],
            cwd=self.folder,
            # without its job queue, which is six more processes
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + 600
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=30)
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        import psutil

        for each in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
            each.kill()
        self.process.wait()
