"""Time of a trial by stage, with and without the stage cache, on every embedded model.

    python benchmarks/trial_time.py [--limit N] [--trials K] [--case embedded-blip2/vqa ...]

Runs the same allocations three times against a fresh SQLite store of MLflow: without the stage
cache, with an empty one, and with the filled one (as when only downstream bits differ from an
earlier trial). Quantized weights come from a filled store. Prints seconds per trial by stage, and
each total relative to that without the cache, from one run.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.models.loading import LoadedModel
from mmq.models.stages import StageCache
from mmq.prepare import Prepared, prepare
from mmq.record import TrialSpec
from mmq.tracking import StudyRun, study_run
from mmq.trial import run_trial

CASES = (
    "embedded-blip2/vqa",
    "embedded-blip2/gqa",
    "embedded-blip2/captioning",
    "embedded-llava/vqa",
    "embedded-llava/gqa",
    "embedded-retrieval/retrieval",
)
DOWNSTREAM = (
    "generate_from_features",
    "embed_texts",
    "match",
)  # what a family does after the stages
WIDTHS = (8, 6, 5, 4, 3)


def time_stages(model: LoadedModel, seconds: dict[str, float]) -> None:
    """Add the time of every stage, and of the downstream model, to `seconds`."""

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments)
            seconds[name] += time.perf_counter() - started
            return result

        return call

    family: Any = model.family
    stages = [replace(s, compute=timed(s.name, s.compute)) for s in family.stages]
    family.stages = tuple(stages)
    for name in DOWNSTREAM:
        if hasattr(family, name):
            setattr(family, name, timed("downstream", getattr(family, name)))


def run_allocations(
    prepared: Prepared, model: LoadedModel, store: Store, run: StudyRun, trials: int
) -> float:
    """Trials at several uniform widths; returns the seconds of all."""
    started = time.perf_counter()
    for k in range(trials):
        allocation = BitAllocation.uniform(model.components, WIDTHS[k % len(WIDTHS)])
        spec = TrialSpec(prepared.eval_spec, allocation)
        with run.trial_run(spec) as trial:
            result = run_trial(
                spec,
                model,
                prepared.artifacts(store, quiet=True),
                prepared.task,
                quiet=True,
            )
            trial.finish(result)
    return time.perf_counter() - started


def measure(case: str, limit: int, trials: int, folder: Path) -> list[str]:
    """A row for each state of the cache."""
    name, task = case.split("/")
    prepared = prepare(EvalOptions(model=name, task=task, limit=limit), {}, lambda parts: [])
    model = prepared.load()
    seconds: dict[str, float] = defaultdict(float)
    time_stages(model, seconds)
    store = Store(folder / "store")
    rows, plain = [], 0.0
    with study_run("benchmark", case.replace("/", "-"), [prepared.eval_spec], None) as run:
        model.stage_cache = None
        run_allocations(prepared, model, store, run, min(trials, len(WIDTHS)))  # fill the store
        cache = StageCache(folder / f"stages-{name}-{task}", 10 * 2**30)
        for state, chosen in (("none", None), ("empty", cache), ("warm", cache)):
            model.stage_cache = chosen
            seconds.clear()
            total = run_allocations(prepared, model, store, run, trials)
            plain = plain or total
            stages = [seconds[key] for key in ("vision", "connector", "downstream")]
            cells = [
                f"{spent / trials:.2f} ({spent / total:.0%})"
                for spent in (*stages, total - sum(stages))
            ]
            rows.append(
                f"| {name} | {task} | {state} | {' | '.join(cells)} "
                f"| {total / trials:.2f} | {total / plain:.2f} |"
            )
    prepared.task.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    print(
        "| model | task | cache | vision, s (share) | connector | downstream | other "
        "| s per trial | ratio |\n|---|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        for case in options.case or CASES:
            for row in measure(case, options.limit, options.trials, Path(folder)):
                print(row, flush=True)


if __name__ == "__main__":
    main()
