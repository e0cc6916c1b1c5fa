"""Failure drills of a search: killed workers, a killed MLflow server, and all processes killed.

    python benchmarks/drills.py [--n-trials N] [--limit N] [--outage SECONDS]

A real PostgreSQL holds the study, a real MLflow server its runs. Two commands of two workers each
join one study, with separate folders as on two machines. During trials, a worker is killed
(SIGKILL); then the server, for the outage; then every process of both commands. Both commands are
started again and complete the study. Prints the results after each, and whether anything was lost,
duplicated or exposed.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from mlflow import MlflowClient

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mlflow_server import MlflowServer
from postgres import PASSWORD, Server, postgres


class Drill:
    """Two commands in one study."""

    def __init__(self, folder: Path, database: Server, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments = folder, arguments
        self.server = MlflowServer(folder)
        self.client = MlflowClient(self.server.uri)
        self.env = os.environ | {
            "MMQ_STORAGE": database.url,
            "MLFLOW_TRACKING_URI": self.server.uri,
            "OMP_NUM_THREADS": "1",
        }
        self.commands: list[subprocess.Popen[bytes]] = []
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.0f} s  {text}", flush=True)

    def start(self) -> None:
        """Both commands at the same moment."""
        search = ["search", "--limit", self.arguments.limit, "--bits", "2,3,4,8,16"]
        search += [
            "--n-trials",
            str(self.arguments.n_trials),
            "--workers",
            "2",
            "--study",
            "drill",
        ]
        self.commands = []
        for machine in ("first", "second"):
            own = self.folder / machine
            own.mkdir(exist_ok=True)
            with (own / "said").open("ab") as output:
                self.commands.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "mmq", *search],
                        cwd=own,
                        env=self.env | {"MMQ_HOME": str(own)},
                        stdout=output,
                        stderr=output,
                    )
                )

    def statuses(self) -> Counter[str]:
        return Counter(run.info.status for run in self.runs("trial"))

    def runs(self, kind: str) -> list:
        experiment = self.client.get_experiment_by_name("mmq")
        if experiment is None:
            return []
        query = f"tags.`mmq.kind` = '{kind}'"
        return list(self.client.search_runs([experiment.experiment_id], query))

    def wait_for(self, what: Callable[[], object], seconds: float = 500) -> None:
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                raise SystemExit("it did not happen in time")
            time.sleep(0.2)

    def kill_a_worker(self) -> None:
        self.wait_for(lambda: self.statuses()["RUNNING"] >= 2)
        run = next(r for r in self.runs("trial") if r.info.status == "RUNNING")
        os.kill(int(run.data.tags["mmq.owner"].split(":")[1]), signal.SIGKILL)
        self.say(f"killed the worker of {run.info.run_name}; {dict(self.statuses())}")
        self.wait_for(lambda: self.client.get_run(run.info.run_id).info.status != "RUNNING")
        self.say(f"its run is {self.client.get_run(run.info.run_id).info.status}")

    def stop_the_server(self) -> None:
        self.wait_for(lambda: self.statuses()["RUNNING"] >= 2)
        before = self.statuses()
        self.server.kill()
        self.say(f"killed the MLflow server for {self.arguments.outage} s; {dict(before)}")
        time.sleep(self.arguments.outage)
        self.server.start()
        back = time.monotonic()
        self.say(f"it is back; {dict(self.statuses())}")
        self.wait_for(lambda: self.statuses()["FINISHED"] > before["FINISHED"] + 2)
        self.say(f"{time.monotonic() - back:.0f} s later: {dict(self.statuses())}")

    def kill_everything(self) -> None:
        self.wait_for(lambda: self.statuses()["RUNNING"] >= 2)
        for command in self.commands:
            for each in [*psutil.Process(command.pid).children(recursive=True), command]:
                each.kill()
        for command in self.commands:
            command.wait()
        self.say(f"killed all processes of both commands; {dict(self.statuses())}")

    def check(self) -> None:
        codes = [command.wait() for command in self.commands]
        self.say(f"both commands ended with {codes}; {dict(self.statuses())}")
        if any(codes):
            print((self.folder / "first" / "said").read_text()[-3000:])
        pruned = [r for r in self.runs("trial") if r.data.tags.get("mmq.state") == "PRUNED"]
        whole = pruned + [r for r in self.runs("trial") if r.info.status == "FINISHED"]
        allocations = Counter(r.data.tags["mmq.allocation"] for r in whole)
        shown = "".join((self.folder / m / "said").read_text() for m in ("first", "second"))
        logged = "".join(str(r.data.to_dictionary()) for k in ("trial", "study")
                         for r in self.runs(k))  # fmt: skip
        per_machine = Counter(r.data.tags["mmq.owner"].split(":")[1] for r in whole)
        for question, answer in {
            "allocations evaluated": f"{len(allocations)} of {self.arguments.n_trials} asked",
            "doubled": sum(n - 1 for n in allocations.values()),
            "of them stopped early": len(pruned),
            "without a score": sum(
                not {"score", "partial/score"} & r.data.metrics.keys() for r in whole
            ),
            "runs still open": self.statuses()["RUNNING"],
            "parent runs": [r.info.status for r in self.runs("study")],
            "evaluated by process": dict(per_machine),
            "password shown": PASSWORD in shown or PASSWORD in logged,
            "trials that failed": [x for x in shown.splitlines() if " failed: " in x],
        }.items():
            print(f"{question:>24}: {answer}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-trials", type=int, default=40)
    parser.add_argument("--limit", default="0")
    parser.add_argument("--outage", type=float, default=60)
    arguments = parser.parse_args()
    with postgres() as database, tempfile.TemporaryDirectory() as name:
        drill = Drill(Path(name), database, arguments)
        try:
            drill.start()
            drill.kill_a_worker()
            drill.stop_the_server()
            drill.kill_everything()
            drill.start()
            drill.check()
        finally:
            for command in drill.commands:
                command.kill()
            drill.server.kill()


if __name__ == "__main__":
    main()
