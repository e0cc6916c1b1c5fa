"""A worker process's own number and place, and its end with its launcher."""

import os
import signal
import socket
import threading
from contextlib import suppress

NUMBER = "MMQ_WORKER"  # environment variable of workers: their number
PLACE = "MMQ_WORKER_PLACE"  # environment variable: the worker's place, for display
LIFELINE = "MMQ_WORKER_LIFELINE"  # set if standard input is a pipe from what launched the worker
STUDY = "MMQ_WORKER_STUDY"  # id of the parent run in MLflow of the study that it works on
UNTIL = "MMQ_WORKER_UNTIL"  # when to start no more trials, in seconds since the epoch


def is_worker() -> bool:
    """Whether a launcher started this process."""
    return NUMBER in os.environ


def number() -> int:
    """The worker's number; 0 for a command that a person started."""
    text = os.environ.get(NUMBER, "0")
    return int(text) if text.isdecimal() else 0


def place() -> str:
    """Where this process runs, to be shown."""
    return os.environ.get(PLACE) or socket.gethostname()


def study_run() -> str:
    """Id of the parent run of the study that this worker was launched for; "" if by hand."""
    return os.environ.get(STUDY, "") if is_worker() else ""


def until() -> float | None:
    """When this worker starts no more trials, in seconds since the epoch; None without a limit."""
    text = os.environ.get(UNTIL, "") if is_worker() else ""
    return float(text) if text.isdecimal() else None


def end_with_launcher() -> None:
    """Interrupt this process when what launched it ends: even `kill -9` closes the pipe."""
    if not os.environ.get(LIFELINE):
        return

    def watch() -> None:
        with suppress(OSError):
            os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
