"""Workers on a Ray cluster: Ray chooses their nodes, restarts them, and keeps their logs.

Each worker is an actor that runs `mmq` as a child process. A node that is lost takes its actors
with it; Ray starts them again on another node, and the trial that was lost is re-queued.
"""

import os
import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmq.contracts import Launcher, LaunchRequest, Output, Workers, WorkerState
from mmq.errors import InputError
from mmq.system.variables import variables
from mmq.system.worker_process import END_TIMEOUT, OWN_RUN, WorkerProcess, end_all

CONNECT_TIMEOUT = 10  # seconds
LOST = -9  # exit code of a worker that Ray no longer restarts
# variables that workers on other nodes need, by their first letters
FORWARDED = ("MMQ_", "MLFLOW_", "HF_", "AWS_", "FSSPEC_", "OMP_NUM_THREADS", "PYTHONPATH")


@dataclass(frozen=True)
class Ray(Launcher):
    """Actors on a running Ray cluster.

    address: of the cluster; auto finds the one that this machine belongs to. cpus: reserved per
    worker. restarts: of each worker whose node or process is lost.
    """

    extra: ClassVar[str] = "ray"

    address: str = "auto"
    cpus: int = 1
    restarts: int = 3

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise ValueError(f"cpus: {self.cpus} is not at least 1")
        if self.restarts < 0:
            raise ValueError(f"restarts: {self.restarts} is negative")

    def _connect(self) -> Any:
        try:
            import ray
        except ImportError:
            raise InputError(
                "launcher: ray is not installed. Run `pip install 'mmq[ray]'`."
            ) from None
        if not ray.is_initialized():
            self._check_address()
            try:
                ray.init(address=self.address, log_to_driver=False, logging_level="error")
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise self._unusable(self.address, error) from error
        return ray

    def _check_address(self) -> None:
        """InputError if nothing listens at HOST:PORT: Ray itself tries for four minutes."""
        given = os.environ.get("RAY_ADDRESS", "") if self.address == "auto" else self.address
        host, _, port = given.rpartition(":")
        if "://" in given or not port.isdecimal():
            return
        try:
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()
        except (OSError, OverflowError) as error:
            raise self._unusable(given, error) from error

    def _unusable(self, address: str, error: Exception) -> InputError:
        return InputError(
            f"address: no Ray cluster at {address!r} ({str(error).rstrip('.')}). Start one with "
            f"`ray start --head`, or give the --address of one (HOST:PORT, or auto)."
        )

    def check(self, request: LaunchRequest) -> None:
        """InputError without a cluster, or if it can never have room for one worker."""
        ray = self._connect()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needs = {"CPU": self.cpus, "GPU": request.gpus}
        if not any(all(node.get(k, 0) >= v for k, v in needs.items()) for node in nodes):
            raise InputError(
                f"launcher: no node of the Ray cluster has {self.cpus} CPUs and {request.gpus} "
                f"GPUs for a worker; choose fewer --cpus or --gpus-per-worker."
            )

    def spans_machines(self) -> bool:
        """Whether the cluster has nodes on several machines."""
        nodes = self._connect().nodes()
        return len({node["NodeManagerAddress"] for node in nodes if node["Alive"]}) > 1

    def preview(self, request: LaunchRequest) -> str:
        """The resources and the command of each actor."""
        head = f"# {len(request.commands)} actors on the Ray cluster at {self.address}, each with "
        head += f"{self.cpus} CPUs and {request.gpus} GPUs, restarted up to {self.restarts} times"
        return "\n".join([head, *(f"mmq {shlex.join(command)}" for command in request.commands)])

    def start(self, request: LaunchRequest, output: Output) -> Workers:
        """Start an actor per worker; those without room wait until there is some."""
        ray = self._connect()
        shared = {k: v for k, v in variables().items() if k.startswith(FORWARDED)}
        shared = {k: v for k, v in shared.items() if k not in OWN_RUN} | dict(request.environment)
        actor = ray.remote(WorkerActor).options(
            num_cpus=self.cpus,
            num_gpus=request.gpus,
            max_restarts=self.restarts,
            max_task_retries=self.restarts,
            max_concurrency=2,
        )
        actors = [
            actor.remote(number, list(command), shared, os.getcwd(), request.gpus)
            for number, command in enumerate(request.commands, start=1)
        ]
        return RayWorkers(ray, actors, output, self.restarts)


class WorkerActor:
    """Runs on a node of the cluster: a worker as a child process. Ray restarts it as a whole."""

    def __init__(
        self,
        number: int,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: str,
        gpus: int,
    ) -> None:
        import ray

        own = dict(environment)
        if gpus:  # those that Ray has reserved
            own["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, ray.get_gpu_ids()))
        if Path(folder).is_dir():  # as in the command that launched it
            os.chdir(folder)
        context = ray.get_runtime_context()
        place = f"{ray.util.get_node_ip_address()} (Ray node {context.get_node_id()[:8]})"
        self._lines: list[str] = []
        self.worker = WorkerProcess(number, arguments, own, place, self._write)

    def _write(self, line: str) -> None:
        print(line, flush=True)  # into Ray's log of this actor
        self._lines.append(line)

    def report(self, printed: int) -> tuple[str, float, int | None, list[str]]:
        """Place, start, exit code, and the lines after the first `printed` ones."""
        code = self.worker.code  # before the lines: those of an ended worker are complete
        return self.worker.place, self.worker.since, code, self._lines[printed:]

    def stop(self) -> None:
        """Interrupt the worker and wait until it has released its work."""
        end_all([self.worker], END_TIMEOUT - 5)


class RayWorkers(Workers):
    """Actors, followed from the driver."""

    def __init__(self, ray: Any, actors: Sequence[Any], output: Output, restarts: int) -> None:
        self.ray, self.actors, self.output, self.restarts = ray, actors, output, restarts
        self._states = [WorkerState(number + 1) for number in range(len(actors))]
        self._printed = [0] * len(actors)
        self._pending: dict[int, Any] = {}  # by actor: a report that was requested

    def poll(self) -> Sequence[WorkerState]:
        """The last known state of every actor: one that waits or restarts has no report yet."""
        for k, actor in enumerate(self.actors):
            if self._states[k].code is None and k not in self._pending:
                self._pending[k] = actor.report.remote(self._printed[k])
        if not (pending := list(self._pending.values())):
            return list(self._states)
        ready, _ = self.ray.wait(pending, num_returns=len(pending), timeout=0.2)
        for k, reference in list(self._pending.items()):
            if reference in ready:
                del self._pending[k]
                self._states[k] = self._read(k, reference)
        return list(self._states)

    def _read(self, k: int, reference: Any) -> WorkerState:
        number = k + 1
        try:
            place, since, code, lines = self.ray.get(reference)
        except self.ray.exceptions.RayActorError as error:
            self.output(number, f"Ray has lost it: {str(error).splitlines()[0]}")
            return WorkerState(number, self._states[k].place, self._states[k].since, LOST)
        before = self._states[k].since
        if before is not None and since != before:
            self.output(number, f"Ray has restarted it on {place}")
            self._printed[k] = 0  # the next report has the output of the new process
            return WorkerState(number, place, since)
        for line in lines:
            self.output(number, line)
        self._printed[k] += len(lines)
        if code is not None and code < 0 and self.restarts:
            self.output(number, f"was ended by signal {-code}; Ray starts it again")
            self.ray.kill(self.actors[k], no_restart=False)
            return WorkerState(number, place, since)
        if code is not None:
            self.ray.kill(self.actors[k])  # its node has room for another worker
        return WorkerState(number, place, since, code)

    def stop(self) -> None:
        """Interrupt all workers, wait for them, and remove the actors."""
        self.restarts = 0
        running = [
            actor
            for actor, state in zip(self.actors, self._states, strict=True)
            if state.since is not None and state.code is None
        ]
        stops = [actor.stop.remote() for actor in running]
        if stops:
            self.ray.wait(stops, num_returns=len(stops), timeout=END_TIMEOUT)
        for actor, state in zip(self.actors, self._states, strict=True):
            if state.code is None:
                self.ray.kill(actor)
        self._states = [
            state
            if state.code is not None
            else WorkerState(state.number, state.place, state.since, -15)
            for state in self._states
        ]
