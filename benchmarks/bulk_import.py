"""Time to log finished runs: into MLflow's tables in bulk, and through its client.

    python benchmarks/bulk_import.py [--rows 2000] [--threads 1 4]

Each way logs the same rows, as `mmq import-results` does, into a new SQLite store in a temporary
folder.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlflow import MlflowClient

from mmq.tracking.finished_runs import FinishedRun, log_finished, log_with_client


def rows(count: int) -> list[FinishedRun]:
    """Runs with the params, metrics and tags of an imported row."""
    names = ("model.name", "evaluator.name", "data.name", "quantizer.name")
    return [
        FinishedRun(
            name=f"vit={k % 7} qformer=4 llm={k % 5}",
            params={"bits.vit": k % 7, "bits.qformer": 4, "bits.llm": k % 5}
            | dict.fromkeys(names, "name"),
            metrics={"score": float(k), "cider": float(k), "bpw": 4.1},
            tags={f"mmq.{name}": f"{k:064d}" for name in ("kind", "study", "row", "allocation")},
        )
        for k in range(count)
    ]


def seconds(log: Callable[[MlflowClient, str], Sequence[str]], count: int) -> float:
    """The time that `log` takes on a new store."""
    with tempfile.TemporaryDirectory() as folder:
        client = MlflowClient(f"sqlite:///{Path(folder).resolve()}/mlflow.db")
        experiment = client.create_experiment("import")
        started = time.perf_counter()
        ids = log(client, experiment)
        spent = time.perf_counter() - started
    assert len(ids) == count
    return spent


def through_client(runs: Sequence[FinishedRun], threads: int) -> Callable[..., Sequence[str]]:
    """Log each run with the client's three calls."""

    def log(client: MlflowClient, experiment: str) -> Sequence[str]:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda run: log_with_client(client, experiment, run), runs))

    return log


def main() -> None:
    """Print one table row per way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    runs = rows(options.rows)
    at_once = seconds(lambda c, e: log_finished(c, e, runs, quiet=True), options.rows)
    print(f"{options.rows:,} rows\n| way | seconds | ratio |\n|---|---|---|")
    print(f"| one transaction | {at_once:.1f} | 1 |", flush=True)
    for threads in options.threads:
        spent = seconds(through_client(runs, threads), options.rows)
        print(f"| client, {threads} threads | {spent:.1f} | {spent / at_once:.0f} |", flush=True)


if __name__ == "__main__":
    main()
