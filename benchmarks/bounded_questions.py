"""How many evaluations a search within a budget needs to find the full grid's best allocation.

    python benchmarks/bounded_questions.py [GRID ...] [--n-trials 30]

GRID: a folder with the records of a grid over components (`$MMQ_HOME/records/...`), or a table
with one row per allocation: columns *_bits, bpw and a score. Without any, synthetic tables of
several shapes are searched. For every budget (best under a size, smallest within a drop) a
separate search looks up its scores. It starts with the rules of thumb, as `mmq search` does.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from sampler_replay import made_up, published
from tqdm import tqdm

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import Point
from mmq.analysis.selection import select
from mmq.record import TrialRecord
from mmq.studies.study import point_of

SIZES = (0.15, 0.25, 0.35, 0.5)  # how far between the smallest and the largest
DROPS = ("0.5%", "1%", "2%", "5%", "10%")
SHAPES = ("product", "additive", "weakest", "steps", "knee")
PARTS = {2: ("vit", "llm"), 3: ("vit", "qformer", "llm")}
WIDTHS = (2, 3, 4, 5, 6, 8, 16)
PARAMETERS = 10**6  # of a table's model


def read_records(folder):
    """Points by allocation, the model's parameters, the space and a name."""
    points = {}
    for path in folder.glob("*.json"):
        record = TrialRecord.from_json(json.loads(path.read_text()))
        if any("." in name for name, _ in record.allocation.bits):
            continue
        points[str(record.allocation)] = point_of(record, "nominal")
        size, spec = record.size, record.spec.eval_spec
    components = tuple(BitAllocation.parse(next(iter(points))).components)
    widths = sorted({b for each in points for _, b in BitAllocation.parse(each).bits})
    space = Space(components, tuple(widths))
    assert len(points) == len(space), f"{folder}: {len(points)} of {len(space)} allocations"
    name = f"{spec.model} {spec.task} {spec.quantizer}"
    return points, size.parameters, space, name


def of_table(table, widths):
    """The same of a table of `sampler_replay`; widths: by component."""
    points = {}
    for at in np.ndindex(*table.levels):
        bits = {part: own[k] for (part, own), k in zip(widths.items(), at, strict=True)}
        name = str(BitAllocation.of(bits))
        points[name] = Point(name, float(table.sizes[at]), float(table.scores[at]))
    every = tuple(sorted({b for own in widths.values() for b in own}))
    limits = tuple((part, own) for part, own in widths.items() if own != every)
    return points, PARAMETERS, Space(tuple(widths), every, limits=limits), table.name


def read_table(path, score, outlier):
    """The same of a published table."""
    rows = pd.read_csv(path)
    columns = [name for name in rows if name.endswith("_bits")]
    widths = {c.removesuffix("_bits"): tuple(sorted(rows[c].unique().tolist())) for c in columns}
    return of_table(published(path, score, outlier), widths)


def synthetic(shape, dims, seed, noise):
    """The same of a synthetic table, with noise on all scores but the unquantized one."""
    table = made_up(shape, dims, seed)
    rng = np.random.default_rng([seed, dims])
    factors = 1 + noise * rng.standard_normal(table.scores.shape)
    factors[(-1,) * dims] = 1
    table.scores = np.maximum(table.scores * factors, 0)
    return of_table(table, dict.fromkeys(PARTS[dims], WIDTHS))


def make_setup(table, parameters, space, budget):
    """Sizes from the table: each component's weights, from what it saves alone."""
    top = {part: space.widths(part)[-1] for part in space.components}
    whole = table[str(BitAllocation.of(top))].bpw
    weights = []
    for name in space.components:
        low = space.widths(name)[0]
        saved = whole - table[str(BitAllocation.of(top | {name: low}))].bpw
        weights.append(saved * parameters / (top[name] - low))
    return SamplerSetup(space, budget, weights, parameters)


def replay(table, parameters, space, budget, n_trials):
    """The evaluation after which the selection is correct and does not change; None: never."""
    (true,) = select(list(table.values()), budget, parameters, lambda name: None, [])
    setup = make_setup(table, parameters, space, budget)
    study = optuna.create_study(directions=["minimize", "maximize"])
    for allocation in setup.first():
        study.enqueue_trial(space.params(allocation))
    points, since = [], None
    for count in range(1, n_trials + 1):
        study.sampler = setup.sampler(0, points)
        trial = study.ask()
        point = table[str(space.suggest(trial))]
        study.tell(trial, [point.bpw, point.score])
        points.append(point)
        (now,) = select(points, budget, parameters, lambda name: None, [])
        right = now.point is not None and true.point is not None
        right = right and (now.point.bpw, now.point.score) == (true.point.bpw, true.point.score)
        since = (since or count) if right else None
    return since


def row(grids, n_trials):
    """A row of the table: of grids that share a name."""
    results, names = [], {}
    for table, parameters, space, name in grids:
        names[name] = len(table)
        bpw = [point.bpw for point in table.values()]
        bounds = [min(bpw) + share * (max(bpw) - min(bpw)) for share in SIZES]
        budgets = [Budget(max_bpw=bound) for bound in bounds]
        budgets += [Budget.parse(max_drop=drop) for drop in DROPS]
        results += [replay(table, parameters, space, budget, n_trials) for budget in budgets]
    rights = [sum(f is not None and f <= n for f in results) for n in (10, 15, 20, 30)]
    (named,) = names.items()
    cells = [*named, len(results), *rights, results.count(None)]
    return "| " + " | ".join(map(str, cells)) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grids", nargs="*", type=Path)
    parser.add_argument("--n-trials", type=int, default=30)
    parser.add_argument("--score", default="cider", help="column of a table")
    parser.add_argument("--outlier", default="", help="row of a table to replace, as 6,7,6")
    parser.add_argument("--seeds", type=int, default=10, help="synthetic tables per shape")
    parser.add_argument("--noise", type=float, default=0.01, help="of synthetic scores")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(
        "| grid | allocations | questions | right after 10 | 15 | 20 | 30 | never |\n"
        + "|---" * 8
        + "|"
    )
    for path in options.grids:
        grid = (
            read_records(path)
            if path.is_dir()
            else read_table(path, options.score, options.outlier)
        )
        print(row([grid], options.n_trials), flush=True)
    if not options.grids:
        for shape, dims in itertools.product(SHAPES, PARTS):
            seeds = tqdm(range(options.seeds), desc=f"{shape}, {dims} parts", leave=False)
            tables = (synthetic(shape, dims, seed, options.noise) for seed in seeds)
            print(row(tables, options.n_trials), flush=True)


if __name__ == "__main__":
    main()
