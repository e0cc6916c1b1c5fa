"""The contract of launchers, which place workers: here, on a Ray cluster, as a SLURM job.

A launcher starts one process per command line of `mmq`, reports where each runs, and stops them.
It schedules nothing itself, and knows nothing about trials: workers share work through the
database of their study.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

Output = Callable[[int, str], None]  # receives a worker's number and one line of its output


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """The workers to start.

    name: of the study, for people who look at the cluster's queue. commands: arguments of `mmq`,
    one command per worker. gpus: how many GPUs each worker gets for itself; 0 reserves none.
    environment: variables that workers need in addition to their own.
    """

    name: str
    commands: Sequence[Sequence[str]]
    gpus: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """Where a worker runs. since: its start in seconds since the epoch; None while it waits.

    code: its exit code, or minus the signal that ended it; None while it runs or waits.
    """

    number: int  # from 1, in the order of the commands
    place: str = ""
    since: float | None = None
    code: int | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the worker has no place yet, or waits for another one."""
        return self.since is None and self.code is None


class Workers(ABC):
    """The workers of one command, running."""

    @abstractmethod
    def poll(self) -> Sequence[WorkerState]:
        """The state of every worker, in order. New output has been passed on before it returns."""

    @abstractmethod
    def stop(self) -> None:
        """Interrupt all workers and wait until they have ended. Safe to call again."""


class Launcher(ABC):
    """A way to place workers. Subclasses are frozen dataclasses; fields are options."""

    version: ClassVar[int] = 1
    extra: ClassVar[str] = ""  # the extra of mmq that installs it; "" if none is needed

    @abstractmethod
    def check(self, request: LaunchRequest) -> None:
        """Raise InputError for what cannot be started, before anything is evaluated."""

    @abstractmethod
    def spans_machines(self) -> bool:
        """Whether workers can run on machines other than this one; called after `check`."""

    @abstractmethod
    def preview(self, request: LaunchRequest) -> str:
        """The script or command lines that `start` would run, without secrets."""

    @abstractmethod
    def start(self, request: LaunchRequest, output: Output) -> Workers:
        """Start all workers, or none: InputError if one of them cannot be started.

        Each worker's environment has MMQ_WORKER (its number) and MMQ_WORKER_PLACE (where it runs,
        for display). Workers end if this process ends, even after `kill -9`, unless the cluster
        is meant to keep them running.
        """
