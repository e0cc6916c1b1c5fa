"""How far the shared parts of a search scale: dispatch, database, tracking server.

    python benchmarks/scale.py [--workers 8] [--trials 40] [--sleep 5] [--rate-seconds 8]

A real PostgreSQL holds the study, a real MLflow server its runs. Forked workers take trials that
sleep instead of evaluating a model, so the time above the sleep is dispatch: asking (or claiming),
logging and telling. Once as a search (Optuna), once as a planned study (work list). Then the
workers do not sleep at all, and what one PostgreSQL and one MLflow server take per second is
counted. Finally, the rates are extrapolated to more workers than this machine has.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.study import SearchStudy
from PIL import Image

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.tables import aligned
from mmq.contracts import FileImage, Prediction
from mmq.models.size import Size
from mmq.record import TrialDetails, TrialResult, TrialSpec
from mmq.studies.work_list import WorkList
from mmq.system.database import Database
from mmq.tracking import StudyRun, study_run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mlflow_server import MlflowServer
from postgres import postgres
from trial_records import eval_spec, record_of

SAMPLES = 100  # whose scores and predictions each trial logs
SPEC = eval_spec(samples=SAMPLES)
SPACE = Space(("vit", "qformer", "llm"), (2, 3, 4, 5, 6, 8, 16))
STEPS = ("ask", "log", "tell")
MINUTES = (1, 10)  # per trial, for the extrapolation


class Worker:
    """A process of a search, or of a planned study if it has units."""

    def __init__(self, folder: Path, name: str, units: list[str] | None = None) -> None:
        os.environ["MMQ_HOME"] = str(folder / "home")
        self.units, self.seconds = units, dict.fromkeys(STEPS, 0.0)
        if units is None:
            identity = SPEC.identity()
            setup = SamplerSetup(SPACE)
            self.study = SearchStudy(name, identity, SPACE, folder / "home", os.getpid(), setup)
        self.work = WorkList(Database(folder / "home"), name)
        self.run: StudyRun | None = None

    def log_to(self, run: StudyRun) -> "Worker":
        self.run = run
        return self

    def _timed(self, step: str, call: Callable[[], object]) -> object:
        began = time.perf_counter()
        result = call()
        self.seconds[step] += time.perf_counter() - began
        return result

    def trials(self, count: int) -> Iterator[tuple[BitAllocation, Callable[[], None]]]:
        """Allocations, each with the call that reports it."""
        if self.units is None:
            while (pending := self._timed("ask", lambda: self.study.ask(count))) is not None:
                record = made_up(pending.allocation).record
                self.study.records.put(record.in_run("run"))
                yield pending.allocation, lambda pending=pending: self.study.tell(pending)
            return
        claims = self.work.claims(self.units)
        while (claim := self._timed("ask", lambda: next(claims, None))) is not None:
            yield (
                BitAllocation.parse(claim.unit),
                lambda claim=claim: self.work.complete(claim),
            )

    def loop(self, count: int, sleep: float, until: float = float("inf")) -> int:
        done = 0
        for allocation, tell in self.trials(count):
            if self.run is not None:
                self._logged(allocation, sleep)
            else:
                time.sleep(sleep)
            self._timed("tell", tell)
            done += 1
            if time.monotonic() > until:
                break
        return done

    def _logged(self, allocation: BitAllocation, sleep: float) -> None:
        began = time.perf_counter()
        with self.run.trial_run(TrialSpec(SPEC, allocation)) as trial:
            time.sleep(sleep)
            trial.finish(made_up(allocation))
        self.seconds["log"] += time.perf_counter() - began - sleep


def made_up(allocation: BitAllocation) -> TrialResult:
    """A trial's result, with as many samples as a small data set."""
    bits = allocation.as_dict()
    bpw = sum(bits.values()) / len(bits)
    score = 80.0 * min(1.0, bpw / 5)
    record = record_of(allocation, score, size=Size(10, bpw, bpw))
    record = replace(
        record,
        spec=TrialSpec(SPEC, record.allocation),
        per_sample={record.primary: (score,) * SAMPLES},
    )
    image = (FileImage(Path(os.environ["MMQ_HOME"]) / "sample.png"),)
    predictions = tuple(Prediction(str(k), image, "?", "yes", "yes", 1.0) for k in range(SAMPLES))
    return TrialResult(record, TrialDetails((), predictions))


def together(count: int, work: Callable[[int], object]) -> list[object]:
    """What as many forked processes return, all of them started at once."""
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(count), context.Queue()

    def run(number: int) -> None:
        queue.put(work(number, barrier))  # type: ignore[call-arg]

    children = [context.Process(target=run, args=(k,)) for k in range(count)]
    for child in children:
        child.start()
    results = [queue.get(timeout=550) for _ in children]
    for child in children:
        child.join()
    return results


def sleeping(folder: Path, name: str, arguments: argparse.Namespace, planned: bool) -> list[str]:
    """One row: trials that sleep, on all workers."""
    units = None
    if planned:
        units = [str(each) for each, _ in zip(SPACE, range(arguments.trials), strict=False)]
        WorkList(Database(folder / "home"), name).offer(units)

    def work(number: int, barrier: object) -> tuple[float, float, dict[str, float], int]:
        worker = Worker(folder, name, units)
        worker.log_to(study_run("scale", name, [SPEC], parents[0]))
        barrier.wait()
        began = time.monotonic()
        with worker.work.present():
            done = worker.loop(arguments.trials, arguments.sleep)
        return began, time.monotonic(), worker.seconds, done

    with study_run("scale", name, [SPEC], None) as run:
        parents = [run.address]
    rows = together(arguments.workers, work)
    wall = max(end for _, end, _, _ in rows) - min(begin for begin, *_ in rows)
    done = sum(count for *_, count in rows)
    per_trial = {step: sum(s[step] for _, _, s, _ in rows) / done for step in STEPS}
    # asking includes waiting for the others at the end, when nothing is left
    linear = done * arguments.sleep / arguments.workers
    cells = [name, str(done), f"{wall:.1f}", f"{linear:.1f}", f"{linear / wall:.2f}"]
    return [*cells, *(f"{per_trial[step]:.3f}" for step in STEPS)]


def rates(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Units per second without sleep, by what takes them."""
    seconds, found = arguments.rate_seconds, {}
    for name, planned, logged in (("asks and tells of a search", False, False),
                                  ("claims of a work list", True, False),
                                  ("trials logged to MLflow", True, True)):  # fmt: skip
        key = name.replace(" ", "-")
        units = [str(each) for each in SPACE] if planned else None
        if units:
            WorkList(Database(folder / "home"), key).offer(units)
        with study_run("scale", key, [SPEC], None) as run:
            parent = run.address

        def work(
            number: int,
            barrier: object,
            key: str = key,
            units: list[str] | None = units,
            logged: bool = logged,
            parent: tuple[str, str] = parent,
        ) -> float:
            worker = Worker(folder, key, units)
            if logged:
                worker.log_to(study_run("scale", key, [SPEC], parent))
            barrier.wait()
            began = time.monotonic()
            with worker.work.present():
                done = worker.loop(len(SPACE), 0, began + seconds)
            return done / (time.monotonic() - began)

        found[name] = float(np.sum(together(arguments.workers, work)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--sleep", type=float, default=5.0)
    parser.add_argument("--rate-seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = MlflowServer(folder)
        stack.callback(server.kill)
        os.environ |= {"MMQ_STORAGE": database.url, "MLFLOW_TRACKING_URI": server.uri,
                       "MMQ_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}  # fmt: skip
        (folder / "home").mkdir()
        Image.new("RGB", (64, 64), "red").save(folder / "home" / "sample.png")
        head = ("study", "trials", "wall s", "linear s", "efficiency", "ask s", "log s", "tell s")
        rows = [sleeping(folder, name, arguments, name == "planned")
                for name in ("search", "planned")]  # fmt: skip
        print(aligned(head, rows))
        measured = rates(folder, arguments)
    print(f"\nPer second, from {arguments.workers} processes:")
    for name, rate in measured.items():
        print(f"  {name}: {rate:.1f}")
    print("\nShare of the measured rate that workers need, by minutes per trial:")
    for workers in (64, 512):
        for minutes in MINUTES:
            needed = workers / (60 * minutes)
            shares = ", ".join(f"{k} {needed / v:.0%}" for k, v in measured.items())
            print(f"  {workers} workers, {minutes} min: {shares}")


if __name__ == "__main__":
    main()
