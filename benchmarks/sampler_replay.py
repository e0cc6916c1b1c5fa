"""Distinct evaluations until a sampler reaches a share of a published table's hypervolume.

    python benchmarks/sampler_replay.py TABLE.csv --score cider --outlier 6,7,6

The table has one row per allocation: columns *_bits, bpw and a score. Every sampler sees the
index of each width; a search starts with a few random allocations, the same for all samplers.
Only distinct allocations are counted. Without a table, synthetic ones of several shapes and
dimensions are searched. With --errors, it prints how the model's errors are distributed instead.
"""

import argparse
import itertools
import time
import warnings
from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
from mmq_search.front_sampler import FrontSampler
from mmq_search.front_sampler.improvement import hypervolume
from mmq_search.front_sampler.surrogate import ScoreModel, Shape
from scipy.stats import t as student_t
from tqdm import tqdm

REFERENCE = (16.0, 0.0)  # bpw, score
SHARES = (0.95, 0.98, 0.99)


@dataclass
class Table:
    name: str
    levels: list[int]  # by parameter: how many
    sizes: np.ndarray  # by indices
    scores: np.ndarray

    @property
    def best(self):
        return hypervolume(self.sizes.ravel(), self.scores.ravel(), REFERENCE)


def published(path, score, outlier):
    rows = pd.read_csv(path)
    columns = [name for name in rows if name.endswith("_bits")]
    widths = [sorted(rows[name].unique()) for name in columns]
    shape = [len(some) for some in widths]
    sizes, scores = np.full(shape, np.nan), np.full(shape, np.nan)
    for _, row in rows.iterrows():
        at = tuple(some.index(row[name]) for name, some in zip(columns, widths, strict=True))
        sizes[at], scores[at] = row["bpw"], row[score]
    assert not np.isnan(scores).any(), "the table lacks allocations"
    if outlier:
        at = [some.index(int(b)) for some, b in zip(widths, outlier.split(","), strict=True)]
        near = [np.add(at, step) for step in ((1, 0, 0), (-1, 0, 0), (0, 0, 1), (0, 0, -1))]
        scores[tuple(at)] = np.mean([scores[tuple(point)] for point in near])
    return Table(f"{score} of {len(rows)} rows", shape, sizes, scores)


def made_up(shape_name, dims, seed):
    """A table of widths 2, 3, 4, 5, 6, 8, 16 (fewer in many dimensions)."""
    rng = np.random.default_rng([seed, dims])
    widths = np.array([2, 3, 4, 5, 6, 8, 16] if dims <= 3 else [2, 3, 4, 8, 16])
    weights = rng.dirichlet(np.ones(dims)) * 0.95
    sizes = sum(np.ix_(*[w * widths for w in weights])) + 16 * 0.05
    shape, least = sizes.shape, rng.uniform(0.5, 3.5, dims)  # bits at which each part is ruined
    loss = [np.exp(-rng.uniform(0.8, 2.5) * (widths - low)) for low in least]
    if shape_name == "product":
        retained = np.exp(-sum(np.ix_(*loss)))
    elif shape_name == "additive":
        own = rng.dirichlet(np.ones(dims))
        retained = sum(np.ix_(*[w * np.exp(-part) for w, part in zip(own, loss, strict=True)]))
    elif shape_name == "weakest":  # the worst part alone counts
        retained = np.exp(-np.maximum.reduce(np.broadcast_arrays(*np.ix_(*loss))))
    elif shape_name == "knee":  # all parts together collapse at a size
        retained = 1 / (1 + np.exp(-1.2 * (sizes - rng.uniform(5, 8))))
    else:  # steps: two plateaus, with ruggedness
        retained = 0.6 * np.exp(-sum(np.ix_(*loss))) + 0.4 * np.exp(-8 * sum(np.ix_(*loss)))
        retained = retained * (1 + 0.02 * rng.standard_normal(shape))
    return Table(f"{shape_name}, {dims} parts", list(shape), sizes, 80 * np.maximum(retained, 0))


def samplers(names, seed):
    made = {
        "front": lambda: FrontSampler(seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "tpe-multivariate": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    return {name: made[name]() for name in names}


def replay(table, sampler, seed, starts, noise, most):
    """Share of the hypervolume after each distinct evaluation; the longest proposal's seconds."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    for point in rng.integers(0, table.levels, (starts, len(table.levels))):
        study.enqueue_trial({f"p{d}": int(k) for d, k in enumerate(point)})
    observed, shares, slowest = {}, [], 0.0
    for _ in range(4 * most):
        started = time.perf_counter()
        trial = study.ask()
        point = tuple(trial.suggest_int(f"p{d}", 0, n - 1) for d, n in enumerate(table.levels))
        slowest = max(slowest, time.perf_counter() - started)
        if point not in observed:
            observed[point] = table.scores[point] * (1 + noise * rng.standard_normal())
            at = tuple(np.array(list(observed)).T)
            shares.append(hypervolume(table.sizes[at], table.scores[at], REFERENCE) / table.best)
        study.tell(trial, [table.sizes[point], observed[point]])
        if shares[-1] >= SHARES[-1] or len(observed) >= most:
            break
    return shares, slowest


def errors(table, seed, count, noise):
    """The model's errors at 50 new points after a search, in units of its deviations."""
    rng = np.random.default_rng(seed)
    scores = table.scores * (1 + noise * rng.standard_normal(table.scores.shape))
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=FrontSampler(seed=seed)
    )
    for _ in range(count):
        trial = study.ask()
        at = tuple(trial.suggest_int(f"p{d}", 0, n - 1) for d, n in enumerate(table.levels))
        study.tell(trial, [table.sizes[at], scores[at]])
    points = np.array([list(trial.params.values()) for trial in study.trials])
    others = rng.integers(0, table.levels, (50, len(table.levels)))
    others = others[(others[:, None] != points[None]).any(-1).all(1)]
    model = ScoreModel(
        Shape.plain(table.levels),
        points,
        scores[tuple(points.T)],
        0.0,
        lambda some: table.sizes[tuple(some.T)],
    )
    mean, deviation = model.predict(others)
    return (scores[tuple(others.T)] - mean) / deviation


def print_errors(options):
    """How heavy the tails of the errors are: Student's t, fitted to those of all tables."""
    print("trials  noise  degrees of freedom  scale  beyond 3 deviations (normal: 0.3%)")
    for count, noise in itertools.product((10, 20, 40), options.noise):
        tables = itertools.product(options.shapes, options.dims, range(options.seeds))
        every = np.concatenate(
            [
                errors(made_up(shape, dims, seed), seed, count, noise)
                for shape, dims, seed in tqdm(list(tables), leave=False)
            ]
        )
        freedom, _, scale = student_t.fit(every, floc=0)
        beyond = np.mean(np.abs(every) > 3)
        print(f"{count:6} {noise:6.0%} {freedom:19.1f} {scale:6.2f} {beyond:9.1%}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?")
    parser.add_argument("--score", default="cider")
    parser.add_argument("--outlier", default="")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--noise", type=float, nargs="*", default=[0.0, 0.02])
    parser.add_argument("--most", type=int, default=160)
    parser.add_argument("--samplers", nargs="*", default=["front", "tpe", "nsga2", "gp", "random"])
    parser.add_argument(
        "--shapes", nargs="*", default=["product", "additive", "weakest", "steps", "knee"]
    )
    parser.add_argument("--dims", type=int, nargs="*", default=[2, 3, 6])
    parser.add_argument("--errors", action="store_true", help="of the model, instead of searches")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    if options.errors:
        print_errors(options)
        return
    print(f"median (90th percentile) of distinct evaluations over {options.seeds} seeds to reach")
    print(f"{'table':28} {'noise':>5} {'sampler':>16}  " + "  ".join(f"{s:>9.0%}" for s in SHARES))
    for shape, dims in itertools.product(options.shapes, options.dims):
        for noise in options.noise:
            for name in options.samplers:
                reached, slowest = [], 0.0
                for seed in tqdm(range(options.seeds), desc=name, leave=False):
                    if options.table:
                        table = published(options.table, options.score, options.outlier)
                    else:
                        table = made_up(shape, dims, seed)
                    sampler = samplers([name], seed)[name]
                    shares, spent = replay(
                        table, sampler, seed, options.starts, noise, options.most
                    )
                    counts = [np.searchsorted(shares, share) + 1 for share in SHARES]
                    reached.append([c if c <= len(shares) else np.inf for c in counts])
                    slowest = max(slowest, spent)
                rows = [
                    f"{m:3.0f} ({p:3.0f})"
                    for m, p in zip(
                        *np.percentile(reached, [50, 90], axis=0, method="higher"), strict=True
                    )
                ]
                print(
                    f"{table.name:28} {noise:5.0%} {name:>16}  "
                    + "  ".join(f"{row:>9}" for row in rows)
                    + f"   at most {slowest:.2f} s a proposal",
                    flush=True,
                )
        if options.table:
            break


if __name__ == "__main__":
    main()
