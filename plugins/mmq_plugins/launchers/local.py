"""Several processes on this machine."""

import os
import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmq.contracts import Launcher, LaunchRequest, Output, Workers, WorkerState
from mmq.errors import InputError
from mmq.system.wording import counted
from mmq.system.worker_process import WorkerProcess, end_all, threads_per_worker

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Local(Launcher):
    """Processes that share this machine's processors equally. GPUs are used in turn, or reserved.

    Unless OMP_NUM_THREADS is set, each worker computes with its share of the threads.
    """

    def check(self, request: LaunchRequest) -> None:
        """InputError if there are fewer GPUs than all workers reserve."""
        gpu_sets(len(request.commands), request.gpus)

    def spans_machines(self) -> bool:
        """Never."""
        return False

    def preview(self, request: LaunchRequest) -> str:
        """One command line per worker, with the variables that differ."""
        own = self._environments(request)
        return "\n".join(
            " ".join([*(f"{k}={v}" for k, v in env.items() if k == VISIBLE), "mmq"])
            + f" {shlex.join(command)}"
            for command, env in zip(request.commands, own, strict=True)
        )

    def start(self, request: LaunchRequest, output: Output) -> Workers:
        """Start a process per worker."""
        place = socket.gethostname()
        processes: list[WorkerProcess] = []
        environments = self._environments(request)
        try:
            for k, (command, env) in enumerate(zip(request.commands, environments, strict=True)):
                number = k + 1
                gpus = f" (GPU {env[VISIBLE]})" if env.get(VISIBLE) else ""

                def relay(line: str, number: int = number) -> None:
                    output(number, line)

                processes.append(WorkerProcess(number, command, env, f"{place}{gpus}", relay))
        except BaseException:
            end_all(processes)
            raise
        return LocalWorkers(processes)

    def _environments(self, request: LaunchRequest) -> list[dict[str, str]]:
        count = len(request.commands)
        threads = os.environ.get("OMP_NUM_THREADS", str(threads_per_worker(count)))
        shared = {**request.environment, "OMP_NUM_THREADS": threads}
        sets = gpu_sets(count, request.gpus)
        return [shared | ({VISIBLE: ",".join(gpus)} if gpus else {}) for gpus in sets]


class LocalWorkers(Workers):
    """Child processes."""

    def __init__(self, processes: Sequence[WorkerProcess]) -> None:
        self.processes = processes

    def poll(self) -> Sequence[WorkerState]:
        """The state of every process."""
        return [WorkerState(p.number, p.place, p.since, p.code) for p in self.processes]

    def stop(self) -> None:
        """Interrupt all processes and wait for them."""
        end_all(self.processes)


def gpu_sets(
    count: int, size: int, environment: Mapping[str, str] = os.environ
) -> list[list[str]]:
    """The GPUs of each worker, disjoint if they are reserved.

    size: GPUs to reserve per worker; with 0, workers take single GPUs in turn, or see what there
    is if there is at most one. InputError if there are too few to reserve.
    """
    if VISIBLE in environment:
        gpus = [name for name in environment[VISIBLE].split(",") if name.strip()]
    else:
        import torch

        gpus = [str(k) for k in range(torch.cuda.device_count())]
    if not size:
        return [[gpus[k % len(gpus)]] if len(gpus) > 1 else [] for k in range(count)]
    if count * size > len(gpus):
        most, rest = len(gpus) // size, "leave the option out, so that workers share what there is"
        raise InputError(
            f"gpus-per-worker: --workers {count} and --gpus-per-worker {size} need "
            f"{counted(count * size, 'GPU')}; this machine has {len(gpus) or 'none'}. "
            + (f"Choose at most {most} --workers, or {rest}." if most else f"{rest.capitalize()}.")
        )
    return [gpus[k * size : (k + 1) * size] for k in range(count)]
