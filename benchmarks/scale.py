"""How far the shared parts of a search scale: dispatch, database, tracking server.

    python benchmarks/scale.py [--workers 8] [--trials 40] [--sleep 5] [--rate-seconds 10]

A real PostgreSQL holds the study and the tables of a real MLflow server. Forked workers take
trials that sleep instead of evaluating a model, so the time above the sleep is dispatch (asking or
claiming, and telling) and logging. Once as a search (Optuna), once as a planned study (work list).
Then the workers do not sleep at all, and what one PostgreSQL and one MLflow server take per second
is counted. Finally, their processor seconds are extrapolated to more workers than there are here.

Prints the three tables of docs/scale.md, in two minutes on an idle machine with two cores.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import psycopg
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.study import PendingTrial, SearchStudy
from PIL import Image

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.tables import markdown
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
SEARCH, CLAIMS, LOGGED = "asks and tells of one search", "claims", "trials logged to MLflow"
NEEDS = [(workers, minutes) for workers in (64, 512) for minutes in (1, 10)]  # per trial


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


def _nothing() -> dict[str, float]:
    return dict.fromkeys(STEPS, 0.0)


@dataclass(slots=True)
class Used:
    """Seconds, and processor seconds, that workers spent on each step."""

    seconds: dict[str, float] = field(default_factory=_nothing)
    cpu: dict[str, float] = field(default_factory=_nothing)

    def copy(self) -> "Used":
        return Used(dict(self.seconds), dict(self.cpu))


class Worker:
    """A process of a search, or of a planned study if it has units."""

    def __init__(
        self, folder: Path, name: str, units: list[str] | None, run: StudyRun | None
    ) -> None:
        self.units, self.run, self.used = units, run, Used()
        if units is None:
            setup = SamplerSetup(SPACE)
            self.study = SearchStudy(
                name, SPEC.identity(), SPACE, folder / "home", os.getpid(), setup
            )
            self.work = WorkList(self.study.storage.database, name)
        else:
            self.work = WorkList(Database(folder / "home"), name)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        began, cpu = time.perf_counter(), time.process_time()
        yield
        self.used.seconds[step] += time.perf_counter() - began
        self.used.cpu[step] += time.process_time() - cpu

    def loop(self, count: int, sleep: float, until: float = float("inf")) -> int:
        """Trials until there are so many, of all workers; returns how many were this worker's."""
        done = 0
        self.claims = None if self.units is None else self.work.claims(self.units)
        while time.monotonic() < until:
            before = self.used.copy()
            with self.timed("ask"):
                work = self.study.ask(count) if self.claims is None else next(self.claims, None)
            if work is None:
                self.used = before  # it waited for the others at the end
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
        result = made_up(allocation)
        if self.run is None:
            time.sleep(sleep)
            return result
        with self.timed("log"), self.run.trial_run(TrialSpec(SPEC, allocation)) as trial:
            time.sleep(sleep)
            trial.finish(result)
        self.used.seconds["log"] -= sleep
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
    """What one worker did: monotonic times, and what it used for all its trials."""

    began: float
    ended: float
    done: int
    used: Used
    connections: int  # of all workers to the database of the study, at the end


@dataclass(frozen=True, slots=True)
class Measured:
    """What all workers did, per trial. cpu: processor seconds of steps and services."""

    done: int
    wall: float
    rate: float  # trials per second
    seconds: dict[str, float]
    cpu: dict[str, float]
    connections: float  # per worker

    @classmethod
    def of(cls, shares: list[Share], services: dict[str, float]) -> "Measured":
        done = sum(share.done for share in shares)
        cpu = {step: sum(share.used.cpu[step] for share in shares) for step in STEPS} | services
        return cls(
            done,
            max(share.ended for share in shares) - min(share.began for share in shares),
            sum(share.done / (share.ended - share.began) for share in shares),
            {step: sum(share.used.seconds[step] for share in shares) / done for step in STEPS},
            {name: value / done for name, value in cpu.items()},
            max(share.connections for share in shares) / len(shares),
        )


def together(
    place: Place, name: str, planned: bool, logged: bool, loop: Callable[[Worker], int]
) -> Measured:
    """What forked workers did, whose loops start at the same moment."""
    units = [str(each) for each, _ in zip(SPACE, range(place.units), strict=False)]
    if planned:
        WorkList(Database(place.folder / "home"), name).offer(units)
    with study_run("scale", name, [SPEC], None) as run:
        parent = run.address
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(place.workers + 1), context.Queue()

    def work() -> None:
        own = study_run("scale", name, [SPEC], parent) if logged else None
        worker = Worker(place.folder, name, units if planned else None, own)
        barrier.wait()
        with worker.work.present():
            began = time.monotonic()
            done = loop(worker)
            ended = time.monotonic()
            queue.put(Share(began, ended, done, worker.used, connections()))
            barrier.wait()  # all of them are still connected

    children = [context.Process(target=work) for _ in range(place.workers)]
    for child in children:
        child.start()
    barrier.wait()
    before = place.cpu()
    shares = [queue.get(timeout=550) for _ in children]
    services = {name: cpu - before[name] for name, cpu in place.cpu().items()}
    barrier.wait()
    for child in children:
        child.join()
    return Measured.of(shares, services)


def connections() -> int:
    """How many connections others have to the database of the study."""
    with closing(psycopg.connect(os.environ["MMQ_STORAGE"], autocommit=True)) as connection:
        query = "select count(*) from pg_stat_activity where datname = 'postgres'"
        row = connection.execute(query + " and pid <> pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def sleeping(place: Place, sleep: float) -> dict[str, Measured]:
    """A search and a planned study whose trials sleep."""

    def loop(worker: Worker) -> int:
        return worker.loop(place.units, sleep)

    return {name: together(place, name, name == "planned study", True, loop)
            for name in ("search", "planned study")}  # fmt: skip


def dispatch_rows(measured: Iterable[Measured], workers: int, sleep: float) -> list[list[str]]:
    """What a trial costs besides its evaluation, a column per kind of study."""
    rows = {
        "share of a linear speedup": lambda m: f"{m.done * sleep / workers / m.wall:.2f}",
        "dispatch: ask or claim, and tell, s": lambda m: (
            f"{m.seconds['ask'] + m.seconds['tell']:.3f}"
        ),
        "of it, ask or claim, s": lambda m: f"{m.seconds['ask']:.3f}",
        "logging, s": lambda m: f"{m.seconds['log']:.3f}",
        "processor seconds: ask and tell": lambda m: f"{m.cpu['ask'] + m.cpu['tell']:.3f}",
        "processor seconds: logging, in the worker": lambda m: f"{m.cpu['log']:.3f}",
        "connections per worker to the study's database": lambda m: f"{m.connections:.1f}",
    }
    return [[name, *(text(each) for each in measured)] for name, text in rows.items()]


def saturated(place: Place, seconds: float) -> dict[str, Measured]:
    """Workers that do not sleep, by what they saturate."""
    place = replace(place, units=len(SPACE))

    def loop(worker: Worker) -> int:
        return worker.loop(place.units, 0, time.monotonic() + seconds)

    kinds = {SEARCH: (False, False), CLAIMS: (True, False), LOGGED: (True, True)}
    return {name: together(place, name.replace(" ", "-"), planned, logged, loop)
            for name, (planned, logged) in kinds.items()}  # fmt: skip


def rate_rows(measured: Mapping[str, Measured]) -> list[list[str]]:
    """Rates, and processor seconds per trial."""
    return [
        [name, f"{m.rate:.1f}", f"{sum(m.cpu[step] for step in STEPS):.3f}",
         f"{m.cpu['mlflow']:.3f}" if m.cpu["log"] else "", f"{m.cpu['postgres']:.3f}"]
        for name, m in measured.items()
    ]  # fmt: skip


def service_rows(measured: Mapping[str, Measured]) -> list[list[str]]:
    """The rate that each service can reach on one core, and the share that workers need of it."""
    search, claims, logged = (measured[name].cpu for name in (SEARCH, CLAIMS, LOGGED))
    seconds = {
        "the lock of one search": search["ask"] + search["postgres"],
        "MLflow, one process": logged["mlflow"],
        "PostgreSQL, search": search["postgres"] + logged["postgres"] - claims["postgres"],
        "PostgreSQL, planned study": logged["postgres"],
    }
    shares = {name: [workers / (60 * minutes) * cpu for workers, minutes in NEEDS]
              for name, cpu in seconds.items()}  # fmt: skip
    needs = [f"{workers / (60 * minutes):.2f}" for workers, minutes in NEEDS]
    rows = [
        [name, f"{1 / seconds[name]:.0f}", *(f"{share:.0%}" for share in own)]
        for name, own in shares.items()
    ]
    return [["needed per second", "", *needs], *rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--sleep", type=float, default=5.0)
    parser.add_argument("--rate-seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start")
    with ExitStack() as stack:
        place = stack.enter_context(servers(arguments.workers, arguments.trials))
        slept = sleeping(place, arguments.sleep)
        print(
            f"\n{arguments.workers} workers, {arguments.trials} trials of {arguments.sleep:g} s:\n"
        )
        rows = dispatch_rows(slept.values(), arguments.workers, arguments.sleep)
        print(markdown(("per trial", *slept), rows), flush=True)
        measured = saturated(place, arguments.rate_seconds)
    print(f"\n{arguments.workers} workers that do not sleep; processor seconds per trial:\n")
    head = ("what is saturated", "per second", "workers", "MLflow", "PostgreSQL")
    print(markdown(head, rate_rows(measured)))
    print("\nRate of each service on one core, and the share of it that workers need:\n")
    needs = (f"{workers} workers, {minutes} min" for workers, minutes in NEEDS)
    print(markdown(("", "per second", *needs), service_rows(measured)))


@contextmanager
def servers(workers: int, trials: int) -> Iterator[Place]:
    """A PostgreSQL, and an MLflow server with its tables in it."""
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = database.url.replace("postgresql://", "postgresql+psycopg://")
        with closing(psycopg.connect(database.url, autocommit=True)) as connection:
            connection.execute("create database mlflow")
        server = MlflowServer(folder, f"{url.rpartition('/')[0]}/mlflow")
        stack.callback(server.kill)
        os.environ |= {"MMQ_STORAGE": database.url, "MLFLOW_TRACKING_URI": server.uri,
                       "MMQ_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1",
                       "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}  # fmt: skip
        (folder / "home").mkdir()
        Image.new("RGB", (64, 64), "red").save(folder / "home" / "sample.png")
        yield Place(folder, workers, trials, server.process.pid, database.folder)


if __name__ == "__main__":
    main()
