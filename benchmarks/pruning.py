"""How much pruning saves, and whether it changes the front: searches replayed over recorded grids.

    python benchmarks/pruning.py RECORDS [RECORDS ...] [--n-trials 25] [--seeds 10]

RECORDS: the folder with the records of a grid (`$MMQ_HOME/records/...`) on the bundled scenes.
Each search asks a sampler (FrontSampler, TPE, or random) as `mmq search` does, first for the
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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.study import SearchStudy
from optuna.samplers import RandomSampler, TPESampler

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.fronts import Point, pareto_front
from mmq.config import TaskOptions
from mmq.contracts import Evaluation, Metric, Prediction, QuantReport, Sample
from mmq.contracts.registry import load
from mmq.data.draw import draw_data
from mmq.errors import InputError
from mmq.eval_spec import EvalSpec
from mmq.evaluation.generating import InParts
from mmq.models.size import Size
from mmq.record import TrialRecord, TrialSpec
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


@dataclass
class Recorded(InParts):
    """An evaluator that returns a recorded trial's scores."""

    task: ClassVar[str] = "recorded"

    primary: str
    known: dict[str, float]  # by sample

    def predict(self, model: Any, samples: Sequence[Sample], progress: Any) -> list[str]:
        """The score, as text."""
        return [repr(self.known[sample.id]) for sample in samples]

    def score(self, samples: Sequence[Sample], answers: Sequence[str]) -> Evaluation:
        """The mean of the scores."""
        each = [float(answer) for answer in answers]
        said = [
            Prediction(s.id, s.image, "", "", "", v) for s, v in zip(samples, each, strict=True)
        ]
        metric = Metric(float(np.mean(each)), len(each))
        return Evaluation(self.primary, {self.primary: metric}, {self.primary: each}, said)


@dataclass(frozen=True, slots=True)
class Grid:
    """The records of a question's allocations, and the samples that they scored."""

    question: EvalSpec
    records: dict[str, dict[str, Any]]
    samples: Sequence[Sample]

    @classmethod
    def read(cls, folder: Path) -> "Grid":
        """All of a folder; InputError where the samples are not the bundled ones."""
        found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        question = EvalSpec(**found[0]["question"])
        chosen = TaskOptions(limit=str(question.samples), seed=question.seed)
        drawn = draw_data(chosen, question.task, question.calibrated)
        if drawn.fingerprint != question.data_fingerprint:
            raise InputError(f"{folder}: the samples are not {question.samples} of the scenes")
        names = {str(BitAllocation.of(facts["allocation"])): facts for facts in found}
        return cls(question, names, drawn.samples)

    @property
    def space(self) -> Space:
        """The space whose allocations were recorded."""
        rows = [facts["allocation"] for facts in self.records.values()]
        bits = sorted({bits for row in rows for bits in row.values()})
        space = Space(tuple(rows[0]), tuple(bits))
        missing = [str(each) for each in space if str(each) not in self.records]
        if missing:
            raise InputError(f"{len(missing)} allocations have no record, such as {missing[0]}")
        return space

    def evaluator(self, allocation: str) -> Recorded:
        """What knows the scores of one trial."""
        facts = self.records[allocation]
        values = facts["per_sample"][facts["primary"]]
        known = {s.id: v for s, v in zip(self.samples, values, strict=True)}
        return Recorded(facts["primary"], known)


def search(
    folder: Path, grid: Grid, sampler: str, seed: int, n_trials: int, pruner: bool
) -> SearchStudy:
    """A search over the grid, kept in a folder of its own."""
    folder.mkdir()
    setup = FixedSampler(grid.space, name=sampler)
    study = SearchStudy("replay", grid.question.facts(), grid.space, folder, seed, setup)
    while len(study.finished()) < n_trials and (pending := study.ask()) is not None:
        name = str(pending.allocation)
        facts, evaluator = grid.records[name], grid.evaluator(name)
        size = Size(*(facts["size"][key] for key in ("parameters", "bpw", "stored_bpw")))
        points = study.points() if pruner else []
        evaluation, pruned = Pruner(seed, points, study.per_sample).evaluate(
            evaluator, None, grid.samples, lambda batches, _: batches, pending.allocation, size
        )
        spec = TrialSpec(grid.question, pending.allocation)
        study.records.keep(TrialRecord(spec, evaluation, QuantReport(), size, {}, pruned), name)
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
            why = pruning.records.get_pruned(name)["pruned"]
            shares[name] = 1 - why["samples"] / why["of"]
            scores = [grid.records[each]["metrics"] for each in (name, why["rival"])]
            worse, better = (each[grid.records[name]["primary"]]["value"] for each in scores)
            wrong += worse > better
            pruned += 1
        cost = {name: grid.records[name]["seconds"]["evaluate"] for name in shares}
        saved.append(float(np.mean(list(shares.values()))))
        seconds.append(sum(shares[n] * cost[n] for n in shares) / sum(cost.values()))
        fronts = [
            [(p.allocation, p.score) for p in pareto_front(each.points())]
            for each in (plain, pruning)
        ]
        same += fronts[0] == fronts[1]
        areas.append(area(pruning.points()) / area(plain.points()) - 1)
        print(f"{sampler} {seed}: saved {saved[-1]:.1%}, {areas[-1]:+.3%}", file=sys.stderr)
    asked = grid.question
    return (
        f"| {asked.model} {asked.task} {asked.quantizer} | {len(grid.records)} | {sampler} "
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
        Recorded.bounds = load("evaluator", grid.question.evaluator).bounds
        for sampler in options.samplers:
            with tempfile.TemporaryDirectory() as name:
                found = row(Path(name), grid, sampler, options.seeds, options.n_trials)
            print(found, flush=True)


if __name__ == "__main__":
    main()
