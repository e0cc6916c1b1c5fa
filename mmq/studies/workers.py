"""The workers of a command: their launcher, their command lines, and their exit codes."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol, TypeVar

from mmq.artifacts.remote import RemoteStore
from mmq.config import TaskOptions, flag
from mmq.contracts import options as option_fields
from mmq.contracts import registry
from mmq.contracts.launcher import Launcher, LaunchRequest, WorkerState
from mmq.errors import DryRun, InputError
from mmq.system import database, worker
from mmq.system.home import home
from mmq.system.progress import has_bars, notify, progress_bar

POLL = 0.5  # seconds between polls of the workers
ERROR, BAD_INPUT = "Error: ", 2  # prefix and exit code of a command with bad input
SHARED_TRACKING = ("http://", "https://", "postgresql", "mysql", "mssql", "databricks")
SINGLE = {"workers": 1, "launcher": "local", "gpus_per_worker": 0, "dry_run": False}


class LaunchOptions(Protocol):
    """The options of a command that can launch workers; see `mmq.config` for their help."""

    @property
    def workers(self) -> int:
        """Number of workers."""

    @property
    def launcher(self) -> str:
        """The plugin that starts them."""

    @property
    def gpus_per_worker(self) -> int:
        """GPUs reserved per worker."""

    @property
    def dry_run(self) -> bool:
        """Whether to print what would be started, and start nothing."""


T = TypeVar("T", bound=TaskOptions)


@dataclass(frozen=True, slots=True)
class Placement:
    """How the workers of a command are placed. is_alone: the command evaluates by itself."""

    launcher: Launcher
    workers: int
    gpus: int
    dry_run: bool
    is_alone: bool

    def request(self, name: str, commands: Sequence[Sequence[str]]) -> LaunchRequest:
        """The workers of a study, checked; InputError if they cannot be started or cooperate.

        DryRun, with what would be started, if the command only prints it.
        """
        request = LaunchRequest(name, commands, self.gpus, {"MMQ_HOME": str(home())})
        if self.dry_run:
            raise DryRun(self.launcher.preview(request))
        self.launcher.check(request)
        if self.launcher.spans_machines():
            check_reachable()
        if (store := RemoteStore.configured()) is not None:
            store.check()
        return request

    def device(self, device: str, dtype: str) -> tuple[str, str]:
        """The device of workers that have GPUs of their own, and the dtype of their trials.

        The machine that launches them may have no GPU: "auto" would mean another dtype there.
        """
        if self.gpus and device == "auto":
            return "cuda", "float16" if dtype == "auto" else dtype
        return device, dtype


def placement(
    options: LaunchOptions, plugin_options: Mapping[str, Any]
) -> tuple[Placement, dict[str, Any]]:
    """Where the workers run, and the plugin options that are not the launcher's."""
    if options.workers < 1:
        raise InputError(f"workers: {options.workers} is not at least 1")
    if options.gpus_per_worker < 0:
        raise InputError(f"gpus-per-worker: {options.gpus_per_worker} is negative")
    kind = registry.load_class("launcher", options.launcher, Launcher)
    fields = option_fields.field_types(kind)
    own: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in plugin_options.items():
        name = key.replace("-", "_").removeprefix("launcher.")
        (own if name in fields else rest)[name if name in fields else key] = value
    launcher: Launcher = option_fields.build(kind, own)
    alone = options.launcher == "local" and options.workers == 1 and not options.gpus_per_worker
    alone = alone and not options.dry_run
    place = Placement(launcher, options.workers, options.gpus_per_worker, options.dry_run, alone)
    return place, rest


def for_workers(options: T, place: Placement) -> T:
    """The options with the dtype that the workers' device implies."""
    _, dtype = place.device(options.device, options.dtype)
    return replace(options, dtype=dtype)


def commands(
    command: str,
    options: TaskOptions,
    plugin_options: Mapping[str, Any],
    place: Placement,
    **fixed: object,
) -> list[list[str]]:
    """The command line of every worker: the options that are not the default ones.

    fixed: options that all workers have, such as the name of the study.
    """
    device, _ = place.device(options.device, options.dtype)
    values = asdict(options) | SINGLE | {"device": device} | fixed
    defaults = {field.name: field.default for field in fields(options)}
    changed = {name: value for name, value in values.items() if value != defaults.get(name)}
    own = [text for name, value in changed.items() for text in (flag(name), str(value))]
    plugins = [f"--{name}={value}" for name, value in plugin_options.items()]
    return [[command, *own, *plugins]] * place.workers


def in_study(request: LaunchRequest, experiment: str, run_id: str) -> LaunchRequest:
    """The workers, bound to their study: its experiment in MLflow, and its parent run."""
    own = {"MLFLOW_EXPERIMENT_NAME": experiment, worker.STUDY: run_id}
    return replace(request, environment={**request.environment, **own})


def ending_at(request: LaunchRequest, until: float | None) -> LaunchRequest:
    """The workers, starting no trial after this time (seconds since the epoch), if there is one.

    A worker may wait in a queue for hours: its own --timeout would begin when it starts.
    """
    if until is None:
        return request
    return replace(request, environment={**request.environment, worker.UNTIL: f"{until:.0f}"})


def check_reachable() -> None:
    """InputError if workers on other machines could not reach the study or the tracking store."""
    if not database.is_shared():
        raise InputError(
            f"launcher: its workers run on several machines, and the study is in SQLite on this "
            f"one. Set {database.VARIABLE} to a PostgreSQL or MySQL database that all reach."
        )
    if not os.environ.get("MLFLOW_TRACKING_URI", "").startswith(SHARED_TRACKING):
        raise InputError(
            "launcher: its workers run on several machines, and the MLflow store is on this one. "
            "Set MLFLOW_TRACKING_URI to a server that all reach (e.g. http://tracking:5000)."
        )


def follow(
    launcher: Launcher,
    request: LaunchRequest,
    done: Callable[[], int],
    target: int,
    is_over: Callable[[], bool],
    unit: str = "trial",
    counts: bool = True,
) -> Sequence[int]:
    """Run the workers until all have ended; returns their exit codes.

    A worker that dies is reported, and the others continue. Bad input that a worker reports before
    anything is done ends all of them with an InputError, and so does the failure of all workers.
    An interrupt ends them all, and their work is released. If some are still queued when no
    work is left, all are stopped: a busy cluster might start those hours later.

    done: returns the number of units that are done. is_over: returns whether none is running or
    left. counts: print the number of finished units where there is no bar.
    """
    report = _Report()
    workers = launcher.start(request, report.line)
    try:
        initial = before = done()
        with progress_bar(total=target, initial=initial, desc=request.name, unit=unit) as bar:
            while True:
                states = workers.poll()
                now = done()
                report.ended(states, has_begun=now > initial)
                if now != before:
                    bar.update(now - before)
                    if counts and not has_bars():
                        notify(f"{now} of {target} {unit}s are done")
                    before = now
                if all(state.code is not None for state in states):
                    break
                queued = sum(state.is_waiting for state in states)
                if queued and is_over():
                    notify(
                        f"No work is left; stopping the workers that are still queued ({queued})."
                    )
                    report.is_silent = True
                    workers.stop()
                    return [state.code or 0 for state in states]
                time.sleep(POLL)
        codes = [state.code or 0 for state in states]
        if all(codes):
            raise InputError(_all_failed(codes))
    except BaseException:
        workers.stop()
        raise
    return codes


class _Report:
    """Prints the output of workers, and how each of them ended."""

    def __init__(self) -> None:
        self.is_silent = False  # once what the workers print no longer matters
        self._errors: dict[int, list[str]] = {}  # unprinted error lines by worker
        self._printed: set[str] = set()
        self._ended: set[int] = set()

    def line(self, number: int, text: str) -> None:
        """Print a line with the worker's number; an error waits until the worker ends."""
        if self.is_silent:
            return
        if text.startswith(ERROR):
            self._errors.setdefault(number, []).append(text.removeprefix(ERROR).strip())
        elif text.strip():
            notify(f"worker {number}: {text.rstrip()}")

    def ended(self, states: Sequence[WorkerState], has_begun: bool) -> None:
        """Report the workers that have just failed, and an error once if several have it."""
        others = sum(state.code is None for state in states)
        for state in states:
            if state.code is None or state.number in self._ended:
                continue
            self._ended.add(state.number)
            errors = self._errors.pop(state.number, [])
            if state.code == BAD_INPUT and errors and not has_begun:
                raise InputError(errors[-1])
            if state.code:
                for text in dict.fromkeys(errors):
                    if text not in self._printed:
                        notify(f"worker {state.number}: {ERROR}{text}", important=True)
                self._printed.update(errors)
                text = f"worker {state.number} {_how(state.code)}; {_others(others)}."
                notify(text, important=True)


def _how(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"


def _others(count: int) -> str:
    return "1 other continues" if count == 1 else f"{count or 'no'} others continue"


def _all_failed(codes: Sequence[int]) -> str:
    """One message for all workers, with each exit code or signal once."""
    ends: dict[str, list[str]] = {}
    for number, code in enumerate(codes, start=1):
        ends.setdefault(_how(code), []).append(str(number))
    texts = [f"{how} (worker {', '.join(numbers)})" for how, numbers in ends.items()]
    return (
        f"workers: all of them ended early: {'; '.join(texts)}. Completed trials are "
        f"saved; the same command resumes."
    )
