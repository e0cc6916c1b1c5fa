"""Start a worker as a child of this process, relay its output, and end it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from mmq.errors import InputError
from mmq.system.variables import variables
from mmq.system.worker import LIFELINE, NUMBER, PLACE, STUDY, UNTIL

END_TIMEOUT = 90  # seconds for workers to end after an interrupt
OUTPUT_TIMEOUT = 10  # seconds to read the last output of a worker that has ended
# variables that a worker does not inherit
OWN_RUN = ("MLFLOW_RUN_ID", NUMBER, PLACE, LIFELINE, UNTIL, STUDY)


class WorkerProcess:
    """A running `python -m mmq`, which ends when this process does.

    output: receives each line that it prints.
    """

    def __init__(
        self,
        number: int,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        place: str,
        output: Callable[[str], None],
    ) -> None:
        env = {k: v for k, v in variables().items() if k not in OWN_RUN}
        env |= {"TQDM_DISABLE": "1", **environment}
        env |= {NUMBER: str(number), PLACE: place, LIFELINE: "stdin"}
        self.number, self.place, self.since = number, place, time.time()
        self._ended = False
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mmq", *arguments],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C in the terminal reaches it through its launcher
            )
        except OSError as error:
            raise InputError(
                f"workers: worker {number} cannot be started: {error}. Choose fewer --workers."
            ) from error
        self._relay = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._relay.start()

    def _read(self, output: Callable[[str], None]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            output(line.rstrip("\n"))

    @property
    def code(self) -> int | None:
        """Its exit code, or minus a signal, once all output has been read; None while it runs."""
        code = self.process.poll()
        if code is not None and not self._ended:
            self._ended = True
            self._relay.join(OUTPUT_TIMEOUT)
        return code

    def interrupt(self) -> None:
        """Ask it to end; it releases its work first."""
        with suppress(ProcessLookupError):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)

    def end(self, seconds: float) -> None:
        """Wait for it to end, and kill it after `seconds`."""
        try:
            self.process.wait(max(0.1, seconds))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def end_all(processes: Sequence[WorkerProcess], seconds: float = END_TIMEOUT) -> None:
    """Interrupt all workers, and wait until they have released their work."""
    for process in processes:
        process.interrupt()
    until = time.monotonic() + seconds
    for process in processes:
        process.end(until - time.monotonic())


def threads_per_worker(count: int) -> int:
    """A worker's equal share of this process's processors."""
    return max(1, len(os.sched_getaffinity(0)) // count)
