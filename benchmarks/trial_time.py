"""Where a trial's time goes, stage by stage, on the embedded model.

    python benchmarks/trial_time.py [--task vqa] [--limit N] [--trials K]

Runs the same allocations twice, with an empty store and with a filled one, against a fresh SQLite
store of MLflow, and prints seconds per trial and shares. Stages inside the evaluation are timed by
wrapping the model's own modules.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from torch import nn

from mmq.allocation import BitAllocation
from mmq.model import LoadedModel
from mmq.prepare import QuestionOptions, prepare
from mmq.store import Store
from mmq.tracking import study_run
from mmq.trial import TrialSpec, run_trial

STAGES = {"vision_model": "ViT", "qformer": "Q-Former", "language_model": "language model"}


@contextmanager
def timed(model: LoadedModel, seconds: dict[str, float]) -> Iterator[None]:
    """Add the time of every forward of the three parts to `seconds`."""
    handles, started = [], {}

    def before(stage: str) -> Callable[..., None]:
        def hook(module: nn.Module, *arguments: Any) -> None:
            started[stage] = time.perf_counter()

        return hook

    def after(stage: str) -> Callable[..., None]:
        def hook(module: nn.Module, *arguments: Any) -> None:
            seconds[stage] += time.perf_counter() - started[stage]

        return hook

    for path, stage in STAGES.items():
        module = model.module.get_submodule(path)
        handles.append(module.register_forward_pre_hook(before(stage)))
        handles.append(module.register_forward_hook(after(stage)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measure(task: str, limit: int, trials: int) -> dict[str, dict[str, float]]:
    """Mean seconds per stage, for an empty and a filled store."""
    prepared = prepare(QuestionOptions(task=task, limit=limit), {}, lambda parts: [])
    model, question = prepared.load(), prepared.question
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        store = Store(Path(folder) / "store")
        with study_run("benchmark", "trial-time", question, None) as run:
            for name in ("empty store", "filled store"):
                seconds: dict[str, float] = defaultdict(float)
                for k in range(trials):
                    allocation = BitAllocation.uniform(model.components, (8, 6, 5, 4, 3)[k % 5])
                    spec = TrialSpec(question, allocation)
                    started = time.perf_counter()
                    with timed(model, seconds), run.trial_run(spec) as trial:
                        record = run_trial(
                            spec,
                            model,
                            prepared.quantizer,
                            prepared.evaluator,
                            prepared.samples,
                            store,
                            quiet=True,
                        )
                        trial.finish(record)
                    seconds["all"] += time.perf_counter() - started
                    for stage, spent in record.seconds.items():
                        seconds[stage] += spent
                results[name] = {stage: spent / trials for stage, spent in seconds.items()}
    prepared.evaluator.close()
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    """Both columns side by side, with the share of the whole."""
    rows = []
    for name, seconds in results.items():
        forwards = sum(seconds[stage] for stage in STAGES.values())
        seconds["decoding, scoring, intervals"] = seconds["evaluate"] - forwards
        seconds["logging"] = seconds["all"] - seconds["quantize"] - seconds["evaluate"]
        rows.append((name, seconds))
    stages = ["quantize", *STAGES.values(), "decoding, scoring, intervals", "logging", "all"]
    lines = [
        "| stage | " + " | ".join(f"{name}, s (share)" for name, _ in rows) + " |",
        "|---|---|---|",
    ]
    for stage in stages:
        cells = [f"{s[stage]:.3f} ({s[stage] / s['all']:.0%})" for _, s in rows]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="vqa")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--trials", type=int, default=5)
    chosen = parser.parse_args()
    print(table(measure(chosen.task, chosen.limit, chosen.trials)))


if __name__ == "__main__":
    main()
