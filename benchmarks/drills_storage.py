"""A search whose database fails, in each phase, with one and three workers.

    python benchmarks/drills_storage.py [--outages 5,30] [--workers 1,3] [--n-trials N] [--limit N]

A real PostgreSQL is stopped (as by a power cut) while a search is in the phase, and started again
after the outage. A database that is unavailable at the start is an immediate error (exit code
2). Prints one row per case: the exit code, how many of the requested allocations were evaluated,
how many were duplicated, and what was left open.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mlflow import MlflowClient
from postgres import PASSWORD, Server, postgres

PHASES = ("starting", "loading", "between trials", "in a trial", "ending")


class Case:
    """One search on one database."""

    def __init__(self, folder: Path, database: Server, options: argparse.Namespace) -> None:
        self.folder, self.database, self.options = folder, database, options
        self.store = f"sqlite:///{folder}/mlflow.db"
        self.study = folder.name

    def start(self, workers: int) -> subprocess.Popen[bytes]:
        own = {"MMQ_STORAGE": self.database.url, "MLFLOW_TRACKING_URI": self.store}
        own |= {"MMQ_HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        command = ["search", "--limit", self.options.limit, "--bits", "2,3,4,8,16", "--workers",
                   str(workers), "--n-trials", str(self.options.n_trials),
                   "--study", self.study]  # fmt: skip
        with (self.folder / "said").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "mmq", *command],
                cwd=self.folder, env=os.environ | own, stdout=output, stderr=output,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def runs(self, status: str = "") -> list:
        client = MlflowClient(self.store)
        experiment = client.get_experiment_by_name("mmq")
        query = "tags.`mmq.kind` = 'trial'"
        query += f" and attributes.status = '{status}'" if status else ""
        return [] if experiment is None else client.search_runs([experiment.experiment_id], query)

    def reached(self, phase: str) -> bool:
        """Whether the search is in this phase."""
        if phase in ("starting", "loading"):
            return (self.folder / "mlflow.db").exists()
        finished = len(self.runs("FINISHED"))
        if phase == "in a trial":
            return finished >= 1 and bool(self.runs("RUNNING"))
        return finished >= (self.options.n_trials if phase == "ending" else 2)

    def run(self, phase: str, workers: int, outage: float) -> tuple[bool, str]:
        """Whether the case passed, and its row."""
        command = self.start(workers)
        wait_for(lambda: self.reached(phase) or command.poll() is not None)
        if phase == "loading":
            time.sleep(3)
        self.database.stop()
        time.sleep(outage)
        self.database.start()
        code = command.wait(900)
        done = Counter(run.data.tags["mmq.allocation"] for run in self.runs("FINISHED"))
        doubled = sum(n - 1 for n in done.values())
        pruned = sum(r.data.tags.get("mmq.state") == "PRUNED" for r in self.runs("KILLED"))
        flaws = ["traceback"] * ("Traceback" in self.said) + ["password"] * (PASSWORD in self.said)
        evaluated, left = len(done) + pruned, len(self.runs("RUNNING"))
        well = not (code or flaws or doubled or left) and evaluated == self.options.n_trials
        if phase == "starting":  # it was never there: an error at once, before any work
            well = code == 2 and not (flaws or evaluated or left)
        return well, (
            f"| {phase} | {workers} | {outage:g} s | {code} | {evaluated} of "
            f"{self.options.n_trials} | {doubled} | {left} | "
            f"{', '.join(flaws) or 'none'} |"
        )


def wait_for(what: Callable[[], object], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise SystemExit("it did not happen in time")
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outages", default="5,30")
    parser.add_argument("--workers", default="1,3")
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--n-trials", type=int, default=10)
    parser.add_argument("--limit", default="20")
    options = parser.parse_args()
    print("| phase | workers | outage | exit code | evaluated | doubled | open | flaws |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with postgres() as database:
        for outage in map(float, options.outages.split(",")):
            for workers in map(int, options.workers.split(",")):
                for phase in options.phases.split(","):
                    with tempfile.TemporaryDirectory() as name:
                        case = Case(Path(name), database, options)
                        well, row = case.run(phase, workers, outage)
                        print(row, flush=True)
                        if not well:
                            print(case.said[-2000:])


if __name__ == "__main__":
    main()
