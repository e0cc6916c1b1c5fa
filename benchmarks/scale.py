"""How far the shared parts of a search scale: dispatch, database, tracking server.

    python benchmarks/scale.py [--workers 8] [--trials 40] [--sleep 5] [--rate-seconds 8]

A real PostgreSQL holds the study and the tables of a real MLflow server. Forked workers take
trials that sleep instead of evaluating a model, so the time above the sleep is dispatch: asking
(or claiming), logging and telling. Once as a search (Optuna), once as a planned study (work
list). Then the workers do not sleep at all, and what one PostgreSQL and one MLflow server take per
second is counted. Finally, the rates are extrapolated to more workers than this machine has.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import psycopg
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.study import PendingTrial, SearchStudy
from PIL import Image

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.tables import aligned
from mmq.contracts import FileImage, Prediction
from mmq.models.size import Size
from mmq.record import TrialDetails, TrialResult, TrialSpec
from mmq.studies.work_list import Claim, WorkList
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


@dataclass(frozen=True, slots=True)
class Place:
    """Where workers run, how many, on how many units.

    server: the process of MLflow. database: the folder of PostgreSQL.
    """

    folder: Path
    workers: int
    units: int
    server: int
    database: Path

    def cpu(self) -> dict[str, float]:
        """Processor seconds of the services so far."""
        own = psutil.Process(self.server)
        mlflow = sum(_cpu(each) for each in [own, *own.children(recursive=True)])
        pid = int((self.database / "data" / "postmaster.pid").read_text().split()[0])
        # a connection that has ended counts for the postmaster, which waited for it
        own = psutil.Process(pid)
        return {"mlflow": mlflow, "postgres": sum(map(_cpu, [own, *own.children()]))}


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


class Worker:
    """A process of a search, or of a planned study if it has units."""

    def __init__(
        self, folder: Path, name: str, units: list[str] | None, run: StudyRun | None
    ) -> None:
        self.units, self.run, self.seconds = units, run, dict.fromkeys(STEPS, 0.0)
        if units is None:
            setup = SamplerSetup(SPACE)
            self.study = SearchStudy(
                name, SPEC.identity(), SPACE, folder / "home", os.getpid(), setup
            )
        self.work = WorkList(Database(folder / "home"), name)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[step] += time.perf_counter() - began

    def loop(self, count: int, sleep: float, until: float = float("inf")) -> int:
        """Trials until there are so many, of all workers; returns how many were this worker's."""
        done = 0
        self.claims = None if self.units is None else self.work.claims(self.units)
        while time.monotonic() < until:
            before = dict(self.seconds)
            with self.timed("ask"):
                work = self.study.ask(count) if self.claims is None else next(self.claims, None)
            if work is None:
                self.seconds = before  # it waited for the others at the end
                break
            self.trial(work, sleep)
            done += 1
        return done

    def trial(self, work: PendingTrial | Claim, sleep: float) -> None:
        """One trial as the commands run it, but that it sleeps."""
        if isinstance(work, Claim):
            self.evaluate(BitAllocation.parse(work.unit), sleep)
            with self.timed("tell"):
                self.work.complete(work)
            return
        with self.study.working(work):
            result = self.evaluate(work.allocation, sleep)
        with self.timed("tell"):
            self.study.records.put(result.record.in_run("run"))
            self.study.tell(work)

    def evaluate(self, allocation: BitAllocation, sleep: float) -> TrialResult:
        result, began = made_up(allocation), time.perf_counter()
        if self.run is None:
            time.sleep(sleep)
            return result
        with self.run.trial_run(TrialSpec(SPEC, allocation)) as trial:
            time.sleep(sleep)
            trial.finish(result)
        self.seconds["log"] += time.perf_counter() - began - sleep
        return result


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


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker did: monotonic times, and seconds, of all its trials."""

    began: float
    ended: float
    done: int
    seconds: dict[str, float]
    cpu: float
    connections: int  # of all workers to the database of the study, at the end


def together(
    place: Place, name: str, planned: bool, logged: bool, loop: Callable[[Worker], int]
) -> list[Share]:
    """The shares of forked workers, whose loops start at the same moment."""
    units = [str(each) for each, _ in zip(SPACE, range(place.units), strict=False)]
    if planned:
        WorkList(Database(place.folder / "home"), name).offer(units)
    with study_run("scale", name, [SPEC], None) as run:
        parent = run.address
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(place.workers), context.Queue()

    def work() -> None:
        own = study_run("scale", name, [SPEC], parent) if logged else None
        worker = Worker(place.folder, name, units if planned else None, own)
        barrier.wait()
        began, cpu = time.monotonic(), time.process_time()
        with worker.work.present():
            done = loop(worker)
            ended = time.monotonic()
            cpu = time.process_time() - cpu
            queue.put(Share(began, ended, done, worker.seconds, cpu, connections()))
            barrier.wait()  # all of them are still connected

    children = [context.Process(target=work) for _ in range(place.workers)]
    for child in children:
        child.start()
    shares = [queue.get(timeout=550) for _ in children]
    for child in children:
        child.join()
    return shares


def connections() -> int:
    """How many connections others have to the database of the study."""
    with closing(psycopg.connect(os.environ["MMQ_STORAGE"], autocommit=True)) as connection:
        query = "select count(*) from pg_stat_activity where datname = 'postgres'"
        row = connection.execute(query + " and pid <> pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def sleeping(place: Place, name: str, planned: bool, sleep: float) -> list[str]:
    """One row: trials that sleep, on all workers, from the start of the first to the last end."""
    before = place.cpu()
    shares = together(place, name, planned, True, lambda worker: worker.loop(place.units, sleep))
    used = {k: v - before[k] for k, v in place.cpu().items()}
    done = sum(share.done for share in shares)
    wall = max(share.ended for share in shares) - min(share.began for share in shares)
    linear = done * sleep / place.workers
    steps = [sum(share.seconds[step] for share in shares) / done for step in STEPS]
    cpus = [sum(share.cpu for share in shares), *used.values()]
    return [
        name, str(done), f"{wall:.1f}", f"{linear / wall:.2f}", *(f"{s:.3f}" for s in steps),
        *(f"{cpu / done:.3f}" for cpu in cpus),
        f"{max(share.connections for share in shares) / place.workers:.1f}",
    ]  # fmt: skip


def rates(place: Place, seconds: float) -> dict[str, float]:
    """Units per second without sleep, by what takes them."""
    measured = {}
    place = replace(place, units=len(SPACE))
    for name, planned, logged in (("asks and tells of one search", False, False),
                                  ("claims of one work list", True, False),
                                  ("trials logged to MLflow", True, True)):  # fmt: skip

        def loop(worker: Worker) -> int:
            return worker.loop(place.units, 0, time.monotonic() + seconds)

        shares = together(place, name.replace(" ", "-"), planned, logged, loop)
        measured[name] = sum(share.done / (share.ended - share.began) for share in shares)
    return measured


def extrapolated(measured: dict[str, float]) -> list[list[str]]:
    """Rows: the share of each measured rate that so many workers need."""
    return [
        [str(workers), str(minutes), f"{(needed := workers / (60 * minutes)):.2f}",
         *(f"{needed / rate:.0%}" for rate in measured.values())]
        for workers in (64, 512)
        for minutes in MINUTES
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--sleep", type=float, default=5.0)
    parser.add_argument("--rate-seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start")
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = database.url.replace("postgresql://", "postgresql+psycopg://")
        with closing(psycopg.connect(database.url, autocommit=True)) as connection:
            connection.execute("create database mlflow")
        server = MlflowServer(folder, f"{url.rpartition('/')[0]}/mlflow")
        stack.callback(server.kill)
        os.environ |= {"MMQ_STORAGE": database.url, "MLFLOW_TRACKING_URI": server.uri,
                       "MMQ_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}  # fmt: skip
        (folder / "home").mkdir()
        Image.new("RGB", (64, 64), "red").save(folder / "home" / "sample.png")
        place = Place(
            folder, arguments.workers, arguments.trials, server.process.pid, database.folder
        )
        head = ("study", "trials", "wall s", "of linear", "ask s", "log s", "tell s",
                "worker CPU s", "MLflow CPU s", "PostgreSQL CPU s",
                "connections per worker")  # fmt: skip
        rows = [sleeping(place, name, name == "planned", arguments.sleep)
                for name in ("search", "planned")]  # fmt: skip
        print(f"\nTrials of {arguments.sleep:g} s on {arguments.workers} workers; per trial:")
        print(aligned(head, rows), flush=True)
        measured = rates(place, arguments.rate_seconds)
    print(f"\nPer second, from {arguments.workers} processes that do not sleep:")
    print(aligned(("what", "per second"), [[k, f"{v:.1f}"] for k, v in measured.items()]))
    print("\nShare of these rates that workers need:")
    names = ("workers", "minutes per trial", "trials per second", *measured)
    print(aligned(names, extrapolated(measured)))


if __name__ == "__main__":
    main()
