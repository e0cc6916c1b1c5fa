"""Failure drills of launchers: whatever is killed, a shared study loses and doubles nothing.

    python benchmarks/drills_cluster.py [--only local,ray,slurm] [--repeat 3]

Each drill is a study of its own: two workers share units of half a second through a work list in a
real PostgreSQL, placed by a launcher. A worker, a node, the head of the cluster, the database or a
job is killed or re-queued in the middle. If all workers are lost, the command is run again. Every
unit must then have one result. Workers sleep in place of a model, so that a drill takes seconds;
`drills.py` does the same to whole searches.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

SITE = """\
import os
if "MMQ_WORKER" in os.environ and "MMQ_DRILL" in os.environ:
    import runpy
    runpy.run_path(os.environ["MMQ_DRILL"], run_name="worker")
    os._exit(0)
"""
UNITS = [f"unit {k}" for k in range(12)]
LIMIT = 180  # seconds for one drill


def work() -> None:
    """A worker: what `mmq` does with planned trials, without a model."""
    import psycopg

    from mmq.studies.work_list import WorkList
    from mmq.system.database import Database
    from mmq.system.worker import end_with_launcher

    end_with_launcher()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    study = os.environ["MMQ_DRILL_STUDY"]
    list_ = WorkList(Database(Path(os.environ["MMQ_HOME"])), study)

    def results(query: str, *values: str) -> list[Any]:
        def call() -> list[Any]:
            with closing(psycopg.connect(os.environ["MMQ_STORAGE"], autocommit=True)) as link:
                cursor = link.execute(query, values)
                return cursor.fetchall() if cursor.description else []

        for _ in range(200):  # the database is one of the things that are killed
            try:
                return call()
            except psycopg.OperationalError:
                time.sleep(0.1)
        return call()

    with list_.present():
        for claim in list_.claims(UNITS):
            has = "select 1 from results where study = %s and unit = %s"
            if not (claim.repeated and results(has, study, claim.unit)):
                time.sleep(0.5)
                list_.check(claim)
                results("insert into results values (%s, %s)", study, claim.unit)
            list_.complete(claim)


def drive(name: str, address: str) -> None:
    """The command: start two workers by a launcher and follow them."""
    from mmq_plugins.launchers.local import Local
    from mmq_plugins.launchers.ray import Ray
    from mmq_plugins.launchers.slurm import Slurm

    from mmq.contracts import LaunchRequest

    launcher = {"local": Local(), "ray": Ray(address=address), "slurm": Slurm()}[name]
    environment = {"MMQ_HOME": os.environ["MMQ_HOME"]}
    request = LaunchRequest(os.environ["MMQ_DRILL_STUDY"], [["grid"]] * 2, 0, environment)
    workers = launcher.start(request, lambda number, line: print(number, line, flush=True))
    while any(state.code is None for state in workers.poll()):
        time.sleep(0.1)


class Drill:
    """One study, its command, and what is done to it."""

    def __init__(self, database: Any, launcher: str, study: str, address: str = "") -> None:
        from mmq.studies.work_list import WorkList
        from mmq.system.database import Database

        self.database, self.launcher, self.study, self.address = database, launcher, study, address
        self.home = Path(os.environ["MMQ_HOME"])
        self.work = WorkList(Database(self.home), study)
        self.work.offer(UNITS)
        self.start()

    def start(self) -> None:
        env = os.environ | {"MMQ_DRILL_STUDY": self.study}
        with (self.home / f"{self.study}.log").open("ab") as log:
            command = [sys.executable, __file__, "--drive", self.launcher, self.address]
            self.command = subprocess.Popen(
                command, env=env, stdout=log, stderr=log, cwd=self.home
            )

    @property
    def done(self) -> int:
        return self.work.count_done(UNITS)

    def busy(self) -> list[Any]:
        from mmq.studies.work_tables import present_workers

        return [w for w in present_workers(self.work.database, self.study) if w.unit]

    def wait(self, what: Callable[[], object]) -> None:
        end = time.monotonic() + LIMIT
        while not what():
            if time.monotonic() > end:
                log = (self.home / f"{self.study}.log").read_text()[-2000:]
                raise SystemExit(f"{self.study}: it did not happen in time\n{log}")
            if self.command.poll() is not None and self.done < len(UNITS):
                self.start()  # a user runs the command again
            time.sleep(0.1)

    def in_the_middle(self) -> None:
        self.wait(lambda: self.done >= 2 and len(self.busy()) == 2)

    def finish(self) -> list[str]:
        """A row: how many units have a result, more than one, none."""
        self.wait(lambda: self.done == len(UNITS) and self.command.poll() is not None)
        import psycopg

        with closing(psycopg.connect(self.database.url)) as link:
            rows = link.execute("select unit from results where study = %s", (self.study,))
            counts = Counter(unit for (unit,) in rows)
        doubled = sum(n - 1 for n in counts.values())
        lost = len(UNITS) - len(counts)
        return [self.study, str(len(counts)), str(doubled), str(lost)]

    # --- what is done ----------------------------------------------------------------------------
    def worker(self) -> None:
        os.kill(int(self.busy()[0].owner.split(":")[1]), signal.SIGKILL)

    def database_(self) -> None:
        self.database.stop()
        time.sleep(2)
        self.database.start()

    def everything(self) -> None:
        self.command.kill()
        for each in self.busy():
            os.kill(int(each.owner.split(":")[1]), signal.SIGKILL)


def local_drills(database: Any, repeat: int) -> Iterator[list[str]]:
    for k in range(repeat):
        for kind, kill in (("worker", Drill.worker), ("database", Drill.database_),
                           ("everything", Drill.everything)):  # fmt: skip
            drill = Drill(database, "local", f"local-{kind}-{k}")
            drill.in_the_middle()
            kill(drill)
            yield drill.finish()


def ray_drills(database: Any, repeat: int) -> Iterator[list[str]]:
    from ray_cluster import MEMORY, ray_cluster

    for k in range(repeat):
        with ray_cluster() as cluster:
            for kind in ("worker", "node", "database"):
                drill = Drill(database, "ray", f"ray-{kind}-{k}", cluster.address)
                drill.in_the_middle()
                if kind == "node":
                    cluster.remove_node(cluster.second)
                    cluster.second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
                elif kind == "worker":
                    drill.worker()
                else:
                    drill.database_()
                yield drill.finish()
            drill = Drill(database, "ray", f"ray-head-{k}", cluster.address)
            drill.in_the_middle()
            cluster.remove_node(cluster.head_node)
            cluster.remove_node(cluster.second)
            drill.command.kill()  # it has lost the cluster
        with ray_cluster() as cluster:
            drill.address = cluster.address
            yield drill.finish()


def slurm_drills(database: Any, repeat: int) -> Iterator[list[str]]:
    from slurm_cluster import slurm_cluster

    with slurm_cluster() as cluster:
        os.environ |= {name: cluster.env[name] for name in ("PATH", "SLURM_CONF")}
        for k in range(repeat):
            for kind in ("worker", "requeue", "database"):
                drill = Drill(database, "slurm", f"slurm-{kind}-{k}")
                drill.in_the_middle()
                if kind == "requeue":
                    job = cluster.run("squeue", "--noheader", "--format=%A").split()[0]
                    cluster.run("scontrol", "requeue", job)
                    time.sleep(1)
                    cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")
                elif kind == "worker":
                    drill.worker()
                else:
                    drill.database_()
                yield drill.finish()


DRILLS = {"local": local_drills, "ray": ray_drills, "slurm": slurm_drills}


@contextmanager
def ground() -> Iterator[Any]:
    """A database with a table of results, and an environment in which workers sleep."""
    import psycopg
    from postgres import postgres

    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "home").mkdir()
        (folder / "sitecustomize.py").write_text(SITE)
        with closing(psycopg.connect(database.url, autocommit=True)) as link:
            link.execute("create table results (study text, unit text)")
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        os.environ |= {"MMQ_STORAGE": database.url, "MMQ_HOME": str(folder / "home"),
                       "MMQ_DRILL": os.path.abspath(__file__), "PYTHONPATH": path,
                       "OMP_NUM_THREADS": "1"}  # fmt: skip
        yield database


def main() -> None:
    from mmq.analysis.tables import aligned

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(DRILLS))
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    with ground() as database:
        for name in arguments.only.split(","):
            for row in DRILLS[name](database, arguments.repeat):
                print(*row, flush=True)
                rows.append(row)
    head = ("study", "units with a result", "doubled", "lost")
    print(aligned(head, rows))
    doubled, lost = (sum(int(row[k]) for row in rows) for k in (2, 3))
    print(f"{len(rows)} kills: {doubled} units doubled, {lost} lost")


if __name__ == "worker":
    work()
elif __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    if sys.argv[1:2] == ["--drive"]:
        drive(*sys.argv[2:])
    else:
        main()
