"""Finer allocations: a search over fine parts against the full grid of components.

    python benchmarks/fine_allocations.py [--case embedded-llava/gqa ...] [--limit 600]
                                          [--granularity fine] [--figure FOLDER]

Both have the same number of evaluations on the same samples: as many as the grid has allocations.
Trials recorded in $MMQ_HOME are reused.
Hypervolumes refer to 16 bpw and a score of 0. At every size of either front the best model of at
most that size is compared, search against grid, by the share of the grid's score that the
search's has, with a 95% interval paired over pictures: `above` and `below` count the sizes whose
interval excludes 1, `worst` is the smallest share. Both are the best of many on the same samples,
so their scores are slightly optimistic: the same pairs are compared again on the held-out samples
beyond --limit.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from mmq_search.study import SearchStudy
from tqdm import tqdm

from mmq.allocation.allocation import BitAllocation, parse_bits
from mmq.analysis.budgets import Budget
from mmq.analysis.evidence import PairedScores
from mmq.analysis.fronts import Point, pareto_front
from mmq.analysis.tradeoffs import fronts_figure
from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.models.loading import LoadedModel
from mmq.prepare import Prepared, prepare
from mmq.record import TrialRecord, TrialSpec
from mmq.studies.designs import grid
from mmq.studies.records import Records
from mmq.studies.study import point_of
from mmq.system.home import home
from mmq.trial import run_trial

CASES = ("embedded-llava/gqa", "embedded-llava/vqa", "embedded-retrieval/retrieval")
LARGEST = 16.0  # bpw


@dataclass(slots=True)
class Bench:
    """A question, its model and its records."""

    prepared: Prepared
    model: LoadedModel
    artifacts: Artifacts
    records: Records

    @classmethod
    def of(cls, case: str, limit: str, quantizer: str, bits: Sequence[int], seed: int) -> "Bench":
        name, task = case.split("/")
        options = EvalOptions(model=name, task=task, limit=limit, quantizer=quantizer, seed=seed)
        prepared = prepare(
            options, {}, lambda parts: [BitAllocation.uniform(parts, b) for b in bits], pairs=True
        )
        artifacts = prepared.artifacts(Store(home() / "store"), quiet=True)
        return cls(prepared, prepared.load(), artifacts, Records.of(prepared.eval_spec))

    def evaluate(self, allocation: BitAllocation) -> None:
        """Run a trial, unless it was recorded."""
        if self.records.get(allocation) is None:
            spec = TrialSpec(self.prepared.eval_spec, allocation)
            trial = run_trial(
                spec,
                self.model,
                self.artifacts,
                self.prepared.task,
                quiet=True,
            )
            self.records.put(trial.record)

    def record(self, allocation: str) -> TrialRecord:
        """The recorded trial."""
        record = self.records.get(allocation)
        assert record is not None
        return record

    def point(self, allocation: BitAllocation) -> Point:
        """An evaluated allocation on the size-score plane."""
        return replace(point_of(self.record(str(allocation)), "nominal"), stored_bpw=None)

    def grid(self, bits: Sequence[int]) -> list[Point]:
        """All allocations over components."""
        allocations = list(grid(list(self.model.components), bits))
        for allocation in tqdm(allocations, desc="grid", leave=False):
            self.evaluate(allocation)
        return [self.point(allocation) for allocation in allocations]

    def setup(self, space: Space) -> SamplerSetup:
        """Exact sizes and the measured profile."""
        setup = SamplerSetup.of(
            space, self.prepared.skeleton, Budget(), self.prepared.quantizer, axis="nominal"
        )
        setup.measure(self.model, self.prepared, self.artifacts)
        return setup

    def search(
        self, bits: tuple[int, ...], granularity: str, count: int, seed: int
    ) -> list[Point]:
        """The points that the search evaluates over finer parts."""
        space = Space(tuple(self.model.components), bits, granularity)
        setup = self.setup(space)
        with tempfile.TemporaryDirectory() as folder:
            identity = self.prepared.eval_spec.identity()
            study = SearchStudy("fine", identity, space, Path(folder), seed, setup)
            study.records = self.records
            for _ in tqdm(range(count), desc=granularity, leave=False):
                trial = study.ask()
                assert trial is not None
                self.evaluate(trial.allocation)
                study.tell(trial)
            return study.points()

    def share(self, new: Point, old: Point, indices: Sequence[int]) -> tuple[float, float, float]:
        """One point's score as a share of another's on these samples, with its paired interval."""
        values: dict[str, list[float]] = {}
        points = []
        for point in (new, old):
            self.evaluate(BitAllocation.parse(point.allocation))
            every = self.record(point.allocation).sample_scores
            assert every is not None
            values[point.allocation] = [every[k] for k in indices]
            mean = float(np.mean(values[point.allocation]))
            points.append(Point(point.allocation, point.bpw, mean))
        pictures = [self.prepared.samples[k].image_id for k in indices]
        scores = PairedScores.of(points, values.get, pictures).resampled
        shares = scores[new.allocation] / np.maximum(scores[old.allocation], 1e-12)
        low, high = np.percentile(shares, [2.5, 97.5])
        return points[0].score / points[1].score, float(low), float(high)


def hypervolume(points: Sequence[Point]) -> float:
    """Area between the front, LARGEST and a score of 0."""
    front = pareto_front(points)
    ends = [*(point.bpw for point in front[1:]), LARGEST]
    return sum((end - point.bpw) * point.score for point, end in zip(front, ends, strict=True))


def best(points: Sequence[Point], bpw: float) -> Point | None:
    """The best of those that are no larger."""
    fitting = [point for point in pareto_front(points) if point.bpw <= bpw]
    return fitting[-1] if fitting else None


def compare(
    bench: Bench, indices: Sequence[int], new: Sequence[Point], old: Sequence[Point]
) -> str:
    """Cells of the table: sizes at which one front is above the other beyond noise, on `kept`."""
    if not indices:
        return "- | - | no samples were left out"
    sizes = sorted({point.bpw for points in (new, old) for point in pareto_front(points)})
    above, below, shares = [], [], []
    for bpw in sizes:
        pair = best(new, bpw), best(old, bpw)
        if pair[0] is None or pair[1] is None or pair[1].score <= 0:
            continue
        share, low, high = bench.share(pair[0], pair[1], indices)
        shares.append((share, low, high, bpw))
        above += [bpw] if low > 1 else []
        below += [bpw] if high < 1 else []
    share, low, high, bpw = min(shares)
    span = f" ({above[0]:.2f} to {above[-1]:.2f} bpw)" if above else ""
    return (
        f"{len(above)} of {len(shares)}{span} | {len(below)} "
        f"| {share:.3f} ({low:.3f} to {high:.3f}) at {bpw:.2f} bpw"
    )


def row(case: str, options: argparse.Namespace) -> str:
    """A case's row of the table, and its figure."""
    bits = parse_bits(options.bits)
    bench = Bench.of(case, options.limit, options.quantizer, bits, options.seed)
    old = bench.grid(bits)
    started = time.process_time()
    space = Space(tuple(bench.model.components), bits, options.granularity)
    bench.setup(space)
    seconds = time.process_time() - started
    new = bench.search(bits, options.granularity, len(old), options.seed)
    bench.prepared.task.close()
    if options.figure:
        options.figure.mkdir(parents=True, exist_ok=True)
        studies = {"grid of components": old, f"search, {options.granularity} parts": new}
        score = bench.record(new[0].allocation).primary
        title = f"{case}, {options.quantizer}: {len(old)} evaluations each"
        path = options.figure / f"{case.replace('/', '-')}-{options.quantizer}.png"
        fronts_figure(studies, score, title).savefig(path, bbox_inches="tight", dpi=110)
    everything = Bench.of(case, "0", options.quantizer, bits, options.seed)
    used = {sample.id for sample in bench.prepared.samples}
    samples = everything.prepared.samples
    unseen = [k for k, sample in enumerate(samples) if sample.id not in used]
    volumes = hypervolume(old), hypervolume(new)
    cells = (
        f"| {case} | {options.quantizer} | {len(space.parts)} | {len(old)} | {volumes[0]:.1f} "
        f"| {volumes[1]:.1f} ({volumes[1] / volumes[0] - 1:+.1%}) "
        f"| {compare(bench, range(len(used)), new, old)} "
        f"| {compare(everything, unseen, new, old)} | {seconds:.1f} |"
    )
    everything.prepared.task.close()
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append")
    parser.add_argument("--limit", default="600")
    parser.add_argument("--quantizer", default="rtn")
    parser.add_argument("--bits", default="2,3,4,5,6,8,16")
    parser.add_argument("--granularity", default="fine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, help="folder for the figures")
    options = parser.parse_args()
    print(
        "| case | quantizer | parts | evaluations each | hypervolume, grid | search (gain) "
        "| sizes above | below | worst share | above on new samples | below | worst share "
        "| profile, s of CPU |\n" + "|---" * 13 + "|"
    )
    for case in options.case or CASES:
        print(row(case, options), flush=True)


if __name__ == "__main__":
    main()
