"""Savings of pruning and its effect on the front, from searches replayed over recorded grids.

    python benchmarks/pruning.py RECORDS [RECORDS ...] [--n-trials 25] [--seeds 10]

RECORDS: the folder with the records of a grid (`$MMQ_HOME/records/...`) on the bundled scenes.
Each search uses a sampler (FrontSampler, TPE, or random) like `mmq search`, starting with the
uniform allocations, and reads the scores from the records: once with complete trials, once with
pruning. `saved` is the share of samples that were not evaluated, `seconds` the same weighted by
the seconds that each trial took when it was recorded (comparisons cost nothing here).
`wrong` counts pruned trials whose rival is not better on all samples; `area` compares the fronts'
hypervolumes.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.study import SearchStudy
from optuna.samplers import RandomSampler, TPESampler

from mmq.analysis.fronts import Point, pareto_front
from mmq.config import TaskOptions
from mmq.contracts import (
    AnswerFormat,
    AnswerProtocol,
    Evaluation,
    GeneratingEvaluator,
    GenerationConfig,
    Metric,
    Prediction,
    Progress,
    QuantReport,
    Request,
    Sample,
    Scorer,
    VisionLanguageModel,
)
from mmq.contracts.registry import load
from mmq.data.draw import draw_data
from mmq.errors import InputError
from mmq.eval_spec import EvalSpec
from mmq.evaluation.generating import Task
from mmq.record import TrialRecord, TrialResult, TrialSpec
from mmq.studies.pruning import Pruner

SAMPLERS = {
    "front": None,  # FrontSampler, as `mmq search` sets it up
    "TPE": lambda seed: TPESampler(seed=seed, multivariate=True, n_startup_trials=10),
    "random": lambda seed: RandomSampler(seed=seed),
}


@dataclass(slots=True)
class FixedSampler(SamplerSetup):
    """A setup with one of these samplers."""

    name: str = "front"

    def sampler(self, seed: int, points: Sequence[Point]) -> Any:
        """The sampler of this name."""
        make = SAMPLERS[self.name]
        return SamplerSetup.sampler(self, seed, points) if make is None else make(seed)


@dataclass(frozen=True)
class Recorded(GeneratingEvaluator):
    """An evaluator whose outputs are a recorded trial's scores."""

    task: ClassVar[str] = "recorded"
    answer_format: ClassVar[AnswerFormat] = AnswerFormat.FREE

    primary: str = ""

    def requests(self, samples: Sequence[Sample], protocol: AnswerProtocol) -> list[Request]:
        """One per sample."""
        return [Request(s.images, "", s.id) for s in samples]

    def scorer(self, samples: Sequence[Sample]) -> "RecordedScorer":
        """The mean of the scores."""
        return RecordedScorer(self.primary)


class RecordedScorer(Scorer):
    """The mean of scores given as text."""

    def __init__(self, primary: str) -> None:
        self.primary = primary

    def score(self, samples: Sequence[Sample], outputs: Sequence[str]) -> Evaluation:
        """The mean."""
        each = [float(text) for text in outputs]
        predictions = [
            Prediction(s.id, s.images, "", "", "", v) for s, v in zip(samples, each, strict=True)
        ]
        metric = Metric(float(np.mean(each)), len(each))
        return Evaluation(self.primary, {self.primary: metric}, {self.primary: each}, predictions)


class Replay(VisionLanguageModel):
    """A model whose outputs are one trial's scores per sample."""

    def __init__(self, scores: Mapping[str, float]) -> None:
        self.scores = scores

    def generate(
        self, requests: Sequence[Request], config: GenerationConfig, progress: Progress
    ) -> list[str]:
        """The scores, as text."""
        return [repr(self.scores[request.sample_id]) for request in requests]


@dataclass(frozen=True, slots=True)
class Grid:
    """The records of an eval spec's allocations, and the samples that they scored."""

    eval_spec: EvalSpec
    records: dict[str, TrialRecord]
    samples: Sequence[Sample]

    @classmethod
    def read(cls, folder: Path) -> "Grid":
        """All of a folder; InputError where the samples are not the bundled ones."""
        texts = [path.read_text() for path in sorted(folder.glob("*.json"))]
        records = [TrialRecord.from_json(json.loads(text)) for text in texts]
        spec = records[0].spec.eval_spec
        options = TaskOptions(limit=str(spec.samples), seed=spec.seed)
        data = draw_data(options, spec.task, spec.calibrated)
        if data.fingerprint != spec.data_fingerprint:
            raise InputError(f"{folder}: the samples are not {spec.samples} of the scenes")
        return cls(spec, {str(r.allocation): r for r in records}, data.samples)

    @property
    def space(self) -> Space:
        """The space whose allocations were recorded."""
        rows = [record.allocation.as_dict() for record in self.records.values()]
        bits = sorted({bits for row in rows for bits in row.values()})
        space = Space(tuple(rows[0]), tuple(bits))
        missing = [str(each) for each in space if str(each) not in self.records]
        if missing:
            raise InputError(f"{len(missing)} allocations have no record, such as {missing[0]}")
        return space

    def replay(self, allocation: str) -> tuple[Task, Replay]:
        """A task, and a model that scores what one trial scored."""
        record = self.records[allocation]
        assert record.sample_scores is not None
        scores = {s.id: v for s, v in zip(self.samples, record.sample_scores, strict=True)}
        return Task(Recorded(primary=record.primary), self.samples, self.samples), Replay(scores)


def search(
    folder: Path, grid: Grid, sampler: str, seed: int, n_trials: int, pruner: bool
) -> SearchStudy:
    """A search over the grid, in a separate folder."""
    folder.mkdir()
    setup = FixedSampler(grid.space, name=sampler)
    study = SearchStudy("replay", grid.eval_spec.identity(), grid.space, folder, seed, setup)
    while len(study.finished()) < n_trials and (pending := study.ask()) is not None:
        name = str(pending.allocation)
        size, (task, model) = grid.records[name].size, grid.replay(name)
        points = study.points() if pruner else []
        with task:
            evaluation, pruned = Pruner(seed, points, study.per_sample).evaluate(
                task, model, lambda batches, _: batches, pending.allocation, size
            )
        spec = TrialSpec(grid.eval_spec, pending.allocation)
        result = TrialResult.of(spec, evaluation, QuantReport(), size, {}, pruned)
        study.records.put(result.record.in_run(name))
        study.tell(pending)
    return study


def area(points: Iterable[Point]) -> float:
    """Hypervolume of a front against 16 bits and score 0."""
    front = [p for p in pareto_front(list(points)) if p.score > 0]
    ends = [*(p.bpw for p in front[1:]), 16.0]
    return sum((end - p.bpw) * p.score for p, end in zip(front, ends, strict=True))


def row(folder: Path, grid: Grid, sampler: str, seeds: int, n_trials: int) -> str:
    """Searches with pruning against searches without, over all seeds."""
    saved, seconds, pruned, wrong, same, areas = [], [], 0, 0, 0, []
    for seed in range(seeds):
        plain, pruning = (
            search(folder / f"{seed}-{pruner}", grid, sampler, seed, n_trials, pruner)
            for pruner in (False, True)
        )
        shares = dict.fromkeys(pruning.evaluated(), 0.0)
        for name in pruning.pruned():
            why = pruning.records.get_pruned(name).pruned
            shares[name] = 1 - why.samples / why.of
            worse, better = (grid.records[each].score.value for each in (name, why.rival))
            wrong += worse > better
            pruned += 1
        cost = {name: grid.records[name].seconds["evaluate"] for name in shares}
        saved.append(float(np.mean(list(shares.values()))))
        seconds.append(sum(shares[n] * cost[n] for n in shares) / sum(cost.values()))
        fronts = [
            [(p.allocation, p.score) for p in pareto_front(each.points())]
            for each in (plain, pruning)
        ]
        same += fronts[0] == fronts[1]
        areas.append(area(pruning.points()) / area(plain.points()) - 1)
        print(f"{sampler} {seed}: saved {saved[-1]:.1%}, {areas[-1]:+.3%}", file=sys.stderr)
    spec = grid.eval_spec
    return (
        f"| {spec.model} {spec.task} {spec.quantizer} | {len(grid.records)} | {sampler} "
        f"| {pruned / seeds:.1f} of {n_trials} | {np.mean(saved):.1%} ({min(saved):.1%} to "
        f"{max(saved):.1%}) | {np.mean(seconds):.1%} | {wrong} | {same} of {seeds} "
        f"| {min(areas):+.2%} to {max(areas):+.2%} |"
    )


def main() -> None:
    """Print one table row per grid and sampler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path, nargs="+")
    parser.add_argument("--n-trials", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    options = parser.parse_args()
    print("| grid | size | sampler | pruned | saved | seconds | wrong | same front | area |")
    print("|---|---|---|---|---|---|---|---|---|")
    for folder in options.records:
        grid = Grid.read(folder)
        Recorded.bounds = load("evaluator", grid.eval_spec.evaluator).bounds
        for sampler in options.samplers:
            with tempfile.TemporaryDirectory() as name:
                cells = row(Path(name), grid, sampler, options.seeds, options.n_trials)
            print(cells, flush=True)


if __name__ == "__main__":
    main()
