"""Several processes on one machine: workers, which search like any other, and an overseer."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from tqdm import tqdm

from mmq.cli.options import flag
from mmq.errors import InputError
from mmq.system.home import home
from mmq.system.variables import variables

VARIABLE = "MMQ_WORKER"  # set in the environment of workers: their number
POLL = 0.5  # seconds
ERROR, BAD_INPUT = "Error: ", 2  # prefix and exit code of a command with bad input
END_TIMEOUT = 90  # seconds for the workers to end after an interrupt


def is_worker() -> bool:
    """Whether an overseer started this process."""
    return VARIABLE in os.environ


def end_with_overseer() -> None:
    """Interrupt this process when its overseer ends: even `kill -9` closes the pipe."""

    def watch() -> None:
        with suppress(OSError):
            os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def devices(device: str, count: int) -> list[str]:
    """A device for every worker: the GPUs in turn, if there are several."""
    import torch

    gpus = torch.cuda.device_count()
    if device == "cuda" and gpus > 1:
        return [f"cuda:{k % gpus}" for k in range(count)]
    return [device] * count


@dataclass(slots=True)
class Worker:
    """A worker process, and the thread that relays its output."""

    number: int
    process: subprocess.Popen[str]
    relay: threading.Thread
    errors: list[str]  # that it ended with, not reported yet

    @classmethod
    def start(cls, number: int, command: Sequence[str], threads: int) -> "Worker":
        """Start one more `mmq search`; threads: its share of the processor's."""
        env = {k: v for k, v in variables().items() if k != "MLFLOW_RUN_ID"}
        env |= {VARIABLE: str(number), "TQDM_DISABLE": "1", "MMQ_HOME": str(home())}
        env.setdefault("OMP_NUM_THREADS", str(threads))
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "mmq", *command],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C in the terminal reaches it through the overseer
            )
        except OSError as error:
            raise InputError(
                f"workers: worker {number} cannot be started: {error}. Choose fewer --workers."
            ) from error
        errors: list[str] = []
        relay = threading.Thread(target=_relay, args=(number, process, errors), daemon=True)
        relay.start()
        return cls(number, process, relay, errors)

    def print(self, text: str) -> None:
        """Print a line with the worker's number."""
        tqdm.write(f"worker {self.number}{text}", file=sys.stderr)


def _relay(number: int, process: subprocess.Popen[str], errors: list[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(ERROR):
            errors.append(line.removeprefix(ERROR).strip())
        elif line.strip():
            tqdm.write(f"worker {number}: {line.rstrip()}", file=sys.stderr)


def arguments(options: Mapping[str, object], plugin_options: Mapping[str, object]) -> list[str]:
    """The command line with these options."""
    own = [text for name, value in options.items() for text in (flag(name), str(value))]
    return ["search", *own, *(f"--{name}={value}" for name, value in plugin_options.items())]


def oversee(
    commands: Sequence[Sequence[str]], done: Callable[[], int], target: int
) -> Sequence[int]:
    """Run one worker per command until all have ended; returns their exit codes.

    A worker that dies is reported, and the others continue. Bad input that a worker reports before
    anything is evaluated ends all of them with an InputError, and so does the failure of all
    workers. An interrupt ends them all, and their trials are re-queued. done: returns how many
    allocations are evaluated.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // len(commands))
    workers: list[Worker] = []
    reported: set[str] = set()
    try:
        workers += [Worker.start(k + 1, each, threads) for k, each in enumerate(commands)]
        initial = done()
        with tqdm(total=target, initial=initial, desc="search", unit="trial") as bar:
            alive = list(workers)
            while alive:
                time.sleep(POLL)
                ended = [w for w in alive if w.process.poll() is not None]
                alive = [w for w in alive if w not in ended]
                for worker in ended:
                    worker.relay.join(1)
                now = done()
                for worker in ended:
                    if worker.process.returncode == BAD_INPUT and worker.errors and now == initial:
                        raise InputError(worker.errors[-1])
                    _report(worker, len(alive), reported)
                bar.update(now - bar.n)
        if all(w.process.returncode for w in workers):
            raise InputError(_all_failed(workers))
    except BaseException:
        _end(workers)
        raise
    return [w.process.returncode for w in workers]


def _how(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"


def _report(worker: Worker, others: int, reported: set[str]) -> None:
    """Report how a worker ended, and its errors unless another worker reported the same."""
    if code := worker.process.returncode:
        for text in worker.errors:
            if text not in reported:
                worker.print(f": {ERROR}{text}")
        reported.update(worker.errors)
        worker.print(f" {_how(code)}; {others} others continue.")


def _all_failed(workers: Sequence[Worker]) -> str:
    """One message for all workers, with each exit code or signal once."""
    ends: dict[str, list[str]] = {}
    for worker in workers:
        ends.setdefault(_how(worker.process.returncode), []).append(str(worker.number))
    texts = [f"{how} (worker {', '.join(numbers)})" for how, numbers in ends.items()]
    return (
        f"workers: all of them ended early: {'; '.join(texts)}. Completed trials are "
        f"saved; the same command resumes."
    )


def _end(workers: Sequence[Worker]) -> None:
    """Interrupt all workers, and wait until they have re-queued their trials."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.terminate()
    until = time.monotonic() + END_TIMEOUT
    for worker in workers:
        try:
            worker.process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def command_lines(
    options: object, plugin_options: Mapping[str, object], device: str, count: int, **fixed: object
) -> list[list[str]]:
    """The command of every worker: the options, with those that are fixed for all workers."""
    values = asdict(options) | fixed | {"workers": 1}  # type: ignore[call-overload]
    return [arguments({**values, "device": own}, plugin_options) for own in devices(device, count)]
