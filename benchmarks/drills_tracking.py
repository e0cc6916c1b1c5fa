"""Commands with a failing tracking server, and with the MLFLOW_RUN_ID of another run.

    python benchmarks/drills_tracking.py [--quick]

Each server fault occurs twice: at the first contact (`mmq trial`), and during a search,
through a proxy in front of a real MLflow server; the search is then run again with the fault gone.
Prints a table: the exit code, the seconds, whether there was a traceback, how many allocations
were evaluated before and after, and whether any was evaluated twice. --quick: first contacts only.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from faulty_server import ANSWERS, FaultyServer
from mlflow_server import MlflowServer

TRIAL = ["trial", "--limit", "4", "--bits", "llm=8"]
SEARCH = ["search", "--limit", "8", "--bits", "3,4,16", "--n-trials", "5", "--study", "drill"]
LINE = "{:<24} {:>5} {:>8} {:>10}  {}"


class Commands:
    """mmq commands in a folder, with a home that all drills share for data and weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        env |= {"MMQ_HOME": str(self.folder / "home"), "OMP_NUM_THREADS": "1", **variables}
        return subprocess.Popen(
            [sys.executable, "-m", "mmq", *arguments],
            cwd=self.folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def call(self, *arguments: str, **variables: str) -> tuple[int, float, str]:
        began = time.monotonic()
        process = self.start(*arguments, **variables)
        output, _ = process.communicate()
        return process.returncode, time.monotonic() - began, output


def row(name: str, code: int, seconds: float, output: str, what: str) -> None:
    trace = "traceback" if "Traceback" in output else "none"
    print(LINE.format(name, code, f"{seconds:.0f}", trace, what), flush=True)


def first_contact(commands: Commands) -> None:
    for fault in (*ANSWERS, "hang"):
        server = FaultyServer(fault)
        result = commands.call(*TRIAL, MLFLOW_TRACKING_URI=server.uri)
        row(f"first contact: {fault}", *result, result[2].strip().splitlines()[-1][-70:])
        server.stop()
    result = commands.call(*TRIAL, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    row("first contact: refused", *result, result[2].strip().splitlines()[-1][-70:])


def finished(real: MlflowServer) -> list[str]:
    client = MlflowClient(real.uri)
    experiment = client.get_experiment_by_name("mmq")
    if experiment is None:
        return []
    query = "tags.`mmq.kind` = 'trial' and attributes.status = 'FINISHED'"
    result = client.search_runs([experiment.experiment_id], query)
    return [run.data.tags["mmq.allocation"] for run in result]


def mid_search(folder: Path, fault: str) -> None:
    """The fault begins after two trials; the same command completes the search later."""
    commands, real = Commands(folder), MlflowServer(folder)
    proxy = FaultyServer(behind=real.uri, seconds=2.0)
    try:
        variables = {"MLFLOW_TRACKING_URI": proxy.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
        began, process = time.monotonic(), commands.start(*SEARCH, **variables)
        while len(finished(real)) < 2 and process.poll() is None:
            time.sleep(0.1)
        proxy.fault, before = fault, len(finished(real))
        output, _ = process.communicate()
        seconds = time.monotonic() - began
        proxy.fault = ""
        code, _, again = commands.call(*SEARCH, **variables)
        after = finished(real)
        twice = len(after) - len(set(after))
        what = f"{before} finished, then {len(after)}, {twice} twice; again: exit {code}"
        row(f"mid search: {fault}", process.returncode, seconds, output + again, what)
    finally:
        proxy.stop()
        real.kill()


def one_run_id(folder: Path) -> None:
    """Two commands at the same moment under the id of one `mlflow run`."""
    commands, uri = Commands(folder), f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    number = client.create_experiment("job", str(folder / "artifacts"))
    run = client.create_run(number, tags={"mlflow.source.type": "PROJECT"}).info.run_id
    variables = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_RUN_ID": run}
    began = time.monotonic()
    both = [commands.start(*TRIAL, **variables) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    runs = client.search_runs([number])
    adopted = sum(r.info.run_id == run and "mmq.kind" in r.data.tags for r in runs)
    states = ", ".join(sorted(r.info.status for r in runs))
    code = max(process.returncode for process in both)
    row("one MLFLOW_RUN_ID", code, time.monotonic() - began, "".join(outputs),
        f"{adopted} adopted it, {len(runs)} runs: {states}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="Try the first contacts only.")
    quick = parser.parse_args().quick
    print(LINE.format("drill", "exit", "seconds", "traceback", "what was found"))
    with tempfile.TemporaryDirectory() as name:
        first_contact(Commands(Path(name)))
    if quick:
        return
    for fault in ("401", "404", "html", "500", "hang", "slow"):
        with tempfile.TemporaryDirectory() as name:
            mid_search(Path(name), fault)
    with tempfile.TemporaryDirectory() as name:
        one_run_id(Path(name))


if __name__ == "__main__":
    main()
