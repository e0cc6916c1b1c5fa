"""How many evaluations a search within a budget needs to find the full grid's best allocation.

    python benchmarks/bounded_questions.py RECORDS [RECORDS ...] [--n-trials 30]

RECORDS: the folder with the records of a grid over components (`$MMQ_HOME/records/...`). For every
budget (best under a size, smallest within a drop) a separate search looks up its scores.
"""

import argparse
import json
from pathlib import Path

import optuna
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.budgets import Budget
from mmq.analysis.selection import select
from mmq.record import TrialRecord
from mmq.studies.study import point_of

SIZES = (0.15, 0.25, 0.35, 0.5)  # how far between the smallest and the largest
DROPS = ("0.5%", "1%", "2%", "5%", "10%")


def read(folder):
    """Points by allocation, model's parameters and the space."""
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
    return (
        points,
        size.parameters,
        space,
        f"{spec.model} {spec.task} {spec.quantizer}",
    )


def make_setup(table, parameters, space, budget):
    """Sizes from the table: each component's weights, from what it saves alone."""
    low, top = space.bits[0], space.bits[-1]
    weights = []
    for name in space.components:
        alone = {part: low if part == name else top for part in space.components}
        saved = (
            table[f"{BitAllocation.uniform(space.components, top)}"].bpw
            - table[str(BitAllocation.of(alone))].bpw
        )
        weights.append(saved * parameters / (top - low))
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--n-trials", type=int, default=30)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(
        "| grid | allocations | questions | right after 10 | 15 | 20 | 30 | never |\n"
        + "|---" * 8
        + "|"
    )
    for folder in options.records:
        table, parameters, space, name = read(folder)
        sizes = [point.bpw for point in table.values()]
        bounds = [min(sizes) + share * (max(sizes) - min(sizes)) for share in SIZES]
        budgets = [Budget(max_bpw=bound) for bound in bounds]
        budgets += [Budget.parse(max_drop=drop) for drop in DROPS]
        results = [
            replay(table, parameters, space, budget, options.n_trials) for budget in budgets
        ]
        rights = [sum(f is not None and f <= n for f in results) for n in (10, 15, 20, 30)]
        cells = " | ".join(map(str, rights))
        print(
            f"| {name} | {len(table)} | {len(budgets)} | {cells} | {results.count(None)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
