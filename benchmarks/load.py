"""Overhead of a growing study: ask, tell, status and analysis.

    python benchmarks/load.py [--trials 100,500,2000] [--only ask,status,analyze] [--jobs 0]

A synthetic study of 18 parts, with one failed trial, is written to a SQLite database with all its
records; then each step is timed in this process without imports. Times are medians of three: wall-
clock seconds and, in brackets, CPU seconds. `analyze` ranks a table of as many rows, with the
default settings.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import optuna
from click.testing import CliRunner
from mmq_search.optuna_tables import models
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.status import status
from mmq_search.study import SearchStudy
from optuna.trial import TrialState
from sqlalchemy import insert

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.importance import Settings
from mmq.analysis.report import analyze
from mmq.analysis.table import Table
from mmq.contracts import Metric
from mmq.eval_spec import EvalSpec
from mmq.models.size import Size
from mmq.record import TrialRecord, TrialSpec

BITS = (2, 3, 4, 5, 6, 8, 16)
REPEATS = 3

SPEC = EvalSpec(
    model="m", model_fingerprint="f", dtype="float32", family="f", family_distribution="mmq",
    family_version=1, family_origin="", task="vqa", data="d", data_fingerprint="f", samples=100,
    quantizer="rtn", quantizer_distribution="mmq", quantizer_version=1, quantizer_origin="",
    quantizer_options={}, evaluator="vqa", evaluator_distribution="mmq", evaluator_version=1,
    evaluator_origin="", evaluator_options={}, environment="", versions={}, seed=0,
)  # fmt: skip


def made_up(space: Space, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels (count, parts), different ones, with their sizes and scores."""
    rng = np.random.default_rng(seed)
    parts = len(space.parts)
    middle = rng.uniform(0, len(BITS) - 1, (2 * count, 1))
    levels = np.clip(np.round(middle + rng.normal(0, 1.2, (2 * count, parts))), 0, len(BITS) - 1)
    levels = np.unique(levels.astype(int), axis=0)
    levels = rng.permutation(levels)[:count]
    levels[: len(BITS)] = np.arange(len(BITS))[:, None]  # as every search begins
    widths = np.array(BITS)[levels]
    harm = np.exp(rng.normal(0, 1, parts)) / parts
    scores = 80 * np.exp(-(harm * 8.0 * 2.0**-levels).sum(1)) + rng.normal(0, 0.3, len(levels))
    return levels, widths.mean(1), scores


def fill(study: SearchStudy, count: int, samples: int = 100) -> None:
    """Evaluated trials with their records."""
    space = study.space
    levels, sizes, scores = made_up(space, count)
    distributions = {
        name: optuna.distributions.IntDistribution(0, len(BITS) - 1) for name in space.parts
    }
    failed = space.params(BitAllocation.uniform(space.components, 4)) | {space.parts[0]: 0}
    trials = [
        optuna.trial.create_trial(
            state=TrialState.FAIL, params=failed, distributions=distributions,
            user_attrs={"allocation": str(space.allocation(failed))},
        )
    ]  # fmt: skip
    for number, (row, size, score) in enumerate(zip(levels.tolist(), sizes, scores, strict=True)):
        params = dict(zip(space.parts, row, strict=True))
        allocation = str(space.allocation(params))
        facts = {
            "allocation": allocation, "run_id": f"{number:032x}", "stored_bpw": size + 0.1,
            "low": score - 1, "high": score + 1, "owner": "nobody:1:1-1",
        }  # fmt: skip
        trials.append(
            optuna.trial.create_trial(
                params=params, distributions=distributions, values=[size, score], user_attrs=facts
            )
        )
        per_sample = (score + np.zeros(samples)).tolist()
        record = {
            "allocation": space.allocation(params).as_dict(), "primary": "s", "run_id": "r",
            "metrics": {"s": {"value": score, "n": samples, "low": score - 1, "high": score + 1}},
            "per_sample": {"s": per_sample}, "size": {"bpw": size, "stored_bpw": size},
        }  # fmt: skip
        study.records.path(allocation).write_text(json.dumps(record))
    _add(study, trials)
    study.study.set_user_attr("score_name", "s")


def _add(study: SearchStudy, trials: list[optuna.trial.FrozenTrial]) -> None:
    """Write trials into the tables in bulk, which takes minutes one by one."""
    begun = len(study.study.get_trials(deepcopy=False))
    now, rows = datetime.now(), defaultdict(list)
    first = 1000  # above the ids of those that wait
    for k, trial in enumerate(trials):
        own = {"trial_id": first + k}
        rows[models.TrialModel].append(
            own | {"number": begun + k, "study_id": study.study_id, "state": trial.state,
                   "datetime_start": now, "datetime_complete": now}
        )  # fmt: skip
        for name, value in trial.params.items():
            text = optuna.distributions.distribution_to_json(trial.distributions[name])
            rows[models.TrialParamModel].append(
                own | {"param_name": name, "param_value": value, "distribution_json": text}
            )
        for objective, value in enumerate(trial.values or []):
            kind = models.TrialValueModel.TrialValueType.FINITE
            rows[models.TrialValueModel].append(
                own | {"objective": objective, "value": value, "value_type": kind}
            )
        for key, value in trial.user_attrs.items():
            rows[models.TrialUserAttributeModel].append(
                own | {"key": key, "value_json": json.dumps(value)}
            )
    with study.storage.optuna.engine.begin() as connection:
        for model, values in rows.items():
            connection.execute(insert(model.__table__), values)


def timed(work: Callable[[], object], repeats: int = REPEATS) -> str:
    """Wall-clock seconds, and CPU seconds including child processes."""
    clock, processor = [], []
    for _ in range(repeats):
        began, before = time.perf_counter(), os.times()[:4]
        work()
        clock.append(time.perf_counter() - began)
        processor.append(sum(os.times()[:4]) - sum(before))
    return f"{statistics.median(clock):.2f} ({statistics.median(processor):.2f})"


def asking(study: SearchStudy) -> tuple[str, str]:
    """Seconds of ask and of tell."""
    while study.trials(TrialState.WAITING):  # the uniform ones: known
        study.ask()
    study.ask()  # the first one reads everything
    proposed = []
    ask = timed(lambda: proposed.append(study.ask()))

    def tell() -> None:
        trial = proposed.pop()
        record = TrialRecord(
            TrialSpec(SPEC, trial.allocation), Size(10, 5.0, 5.0), "s",
            {"s": Metric(50.0, 100, 49.0, 51.0)}, {"s": (50.0,) * 100}, {}, {}, run_id="r",
        )  # fmt: skip
        study.records.put(record)
        study.tell(trial)

    return ask, timed(tell)


def looking() -> None:
    result = CliRunner().invoke(status, ["load"], catch_exceptions=False)
    assert "allocations evaluated" in result.output


def analysis(space: Space, count: int, jobs: int) -> str:
    levels, _, scores = made_up(space, count)
    table = Table("load", space.parts, np.array(BITS)[levels].astype(float), scores)
    return timed(lambda: analyze([table], Settings(jobs=jobs, quiet=True)), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", default="100,500,2000")
    parser.add_argument("--only", default="ask,status,analyze")
    parser.add_argument("--jobs", type=int, default=0)
    options = parser.parse_args()
    space = Space(("vit", "qformer", "llm"), BITS, "fine")
    print(f"{len(space.parts)} parts; seconds\n| trials | ask | tell | status | analyze |")
    print("|---|---|---|---|---|")
    for count in map(int, options.trials.split(",")):
        with tempfile.TemporaryDirectory() as name:
            os.environ["MMQ_HOME"] = name
            weights = [10_000_000] * len(space.parts)
            setup = SamplerSetup(space, weights=weights, parameters=sum(weights))
            study = SearchStudy("load", {"seed": 0}, space, Path(name), 0, setup)
            fill(study, count)
            cells: list[str] = []
            cells += asking(study) if "ask" in options.only else ("-", "-")
            cells.append(timed(looking) if "status" in options.only else "-")
            jobs = options.jobs
            cells.append(analysis(space, count, jobs) if "analyze" in options.only else "-")
        print(f"| {count:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
