"""A folder for failure drills: run commands in separate processes and read the logged results."""

import os
import re
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 90.0  # seconds after which a command hangs
QUESTION = [
    "--model", "embedded-llava", "--task", "gqa", "--quantizer", "gptq", "--limit", "6",
    "--calibration-samples", "8",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. code: None where it hung."""

    code: int | None
    output: str
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether it neither hung nor ended with a traceback."""
        return self.code is not None and "Traceback" not in self.output

    @property
    def last_line(self) -> str:
        lines = [x for x in re.split(r"[\r\n]+", self.output) if x.strip() and "it/s" not in x]
        return lines[-1][:150] if lines else ""


class Ground:
    """home: MMQ_HOME. logs: MLflow's database and files. temp: TMPDIR."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.logs, self.temp = folder / "home", folder / "logs", folder / "temp"
        for each in (self.logs, self.temp):
            each.mkdir(parents=True, exist_ok=True)

    @property
    def env(self) -> dict[str, str]:
        return {
            "MMQ_HOME": str(self.home),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.logs}/mlflow.db",
            "TMPDIR": str(self.temp),
            "TQDM_DISABLE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def run(self, *command: str, before: Any = None) -> Ended:
        """A command in a fork of this process: what is imported once serves all of them.

        before: called in the fork first.
        """
        began, output = time.monotonic(), self.folder / "said"
        pid = os.fork()
        if not pid:
            self._become(command, output, before)
        while time.monotonic() < began + LIMIT:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                return Ended(code, output.read_text(errors="replace"), time.monotonic() - began)
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return Ended(None, output.read_text(errors="replace"), time.monotonic() - began)

    def _become(self, command: tuple[str, ...], output: Path, before: Any) -> None:
        code = 1
        try:
            number = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for each in (1, 2):
                os.dup2(number, each)
            sys.stdout = open(1, "w", closefd=False, buffering=1)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
            os.environ.update(self.env)
            os.chdir(self.logs)
            import tempfile

            import mlflow

            from mmq.cli.main import main

            tempfile.tempdir = None
            mlflow.set_tracking_uri(None)
            if before is not None:
                before()
            main(list(command))
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def scores(self, study: str) -> dict[str, float]:
        """The logged scores of a study's finished trials by allocation.

        Read from MLflow's tables: its client would keep connections to a file that `restore`
        replaces.
        """
        query = """
            select a.value, m.value from runs r
            join tags s on s.run_uuid = r.run_uuid and s.key = 'mmq.study' and s.value = ?
            join tags a on a.run_uuid = r.run_uuid and a.key = 'mmq.allocation'
            join latest_metrics m on m.run_uuid = r.run_uuid and m.key = 'score'
            where r.status = 'FINISHED'"""
        with closing(sqlite3.connect(self.logs / "mlflow.db")) as database:
            return dict(database.execute(query, (study,)))

    def keep(self) -> None:
        """Save copies of home and logs."""
        for folder in (self.home, self.logs):
            shutil.copytree(folder, self.folder / f"{folder.name}.sound", symlinks=True)

    def restore(self) -> None:
        """Restore home and logs from the copies."""
        for folder in (self.home, self.logs):
            shutil.rmtree(folder)
            shutil.copytree(self.folder / f"{folder.name}.sound", folder, symlinks=True)


def warm_up() -> None:
    """Import what every command needs, without opening a store."""
    import torch
    import transformers.models.llava.modeling_llava  # noqa: F401

    from mmq.cli import trial as commands  # noqa: F401

    torch.set_num_threads(1)
