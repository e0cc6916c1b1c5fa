"""What the sampler is made of: the expected improvement, levels and sizes, the model of scores."""

import itertools

import numpy as np
import pytest
from mmq_search.front_sampler import proposal
from mmq_search.front_sampler.grid import Grid, Sizes, by_size
from mmq_search.front_sampler.improvement import expected_improvement, hypervolume, steps
from mmq_search.front_sampler.proposal import Acquisition, Bounds
from mmq_search.front_sampler.surrogate import ScoreModel, Shape
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from test_front_sampler import WEIGHTS, WIDTHS, score, size


def test_the_expected_improvement_is_what_sampling_finds():
    rng = np.random.default_rng(0)
    sizes, scores, reference = np.array([3.0, 5.0, 9.0]), np.array([10.0, 50.0, 70.0]), (16.0, 0.0)
    front = steps(sizes, scores, reference)
    for at, mean, deviation in ((2.5, 5, 10), (4.0, 60, 5), (8.0, 45, 20), (17.0, 90, 5)):
        drawn = mean + deviation * rng.standard_normal(4000)
        before = hypervolume(sizes, scores, reference)
        after = [hypervolume(np.r_[sizes, at], np.r_[scores, y], reference) for y in drawn]
        gains = np.array(after) - before
        normal = np.array([at]), np.array([mean]), np.array([deviation])
        closed = expected_improvement(*normal, front)
        assert closed[0] == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / 60 + 1e-9)


@pytest.mark.parametrize(
    ("bounds", "evaluated", "decisive", "other"),  # size and score, then their deviation
    [
        # smaller than the selection, probably below the minimum; larger, and as good but for noise
        (Bounds(min_score=79.2), [(4, 80), (16, 80)], (3.75, 72, 5), (8, 80, 2)),
        # probably the best within the bound; much better than the front at half the size
        (Bounds(max_size=8), [(3, 60), (7, 78)], (8, 79, 1), (4, 68, 5)),
    ],
)
def test_within_bounds_the_selection_counts_more_than_the_front(
    bounds, evaluated, decisive, other
):
    sizes = Sizes(0.0, [np.array([2.0, 16.0])])
    size, score = np.array(evaluated, dtype=float).T
    allowed = np.array([True, True])
    acquisition = Acquisition.of(size, score, allowed, bounds, sizes, 0.0, 80.0)
    gains = acquisition.gain(*np.array([decisive, other], dtype=float).T)
    assert gains[0] > gains[1]


def test_sizes_that_are_a_sum_are_learned_exactly_and_order_the_levels():
    space = {
        "kind": CategoricalDistribution(["int8", "nf4", "fp16"]),
        "rank": IntDistribution(0, 6),
        "share": FloatDistribution(0.0, 1.0, step=0.25),
    }
    grid, rng = Grid.of(space), np.random.default_rng(0)
    kinds = {"int8": 8, "nf4": 4, "fp16": 16}

    def true(params):
        return kinds[params["kind"]] - 2.0 * params["rank"] ** 1.5 + params["share"]

    points = grid.random(40, rng)
    told = np.array([true(grid.decode(p.tolist())) for p in points])
    ordered, sizes = by_size(grid, Sizes.fitted(grid, points, told))
    everything = ordered.everything()
    expected = [true(ordered.decode(p.tolist())) for p in everything]
    np.testing.assert_allclose(sizes(everything), expected, atol=1e-3)
    assert ordered.levels["kind"] == ["nf4", "int8", "fp16"]
    assert ordered.levels["rank"] == [6, 5, 4, 3, 2, 1, 0]


def test_a_known_size_that_is_not_a_sum_is_computed_point_by_point():
    grid = Grid({"a": [1, 2, 3], "b": [5, 3, 1]})
    known = Sizes.tabulated(grid, lambda p: p["a"] * p["b"], np.random.default_rng(0))
    ordered, sizes = by_size(grid, known)
    points = ordered.everything()
    assert ordered.levels["b"] == [1, 3, 5]
    assert sizes(points).tolist() == [
        a * b for a, b in itertools.product(ordered.levels["a"], ordered.levels["b"])
    ]


def test_a_few_trials_reveal_saturation():
    grid = Grid(dict.fromkeys(WEIGHTS, WIDTHS))
    points = grid.random(15, np.random.default_rng(1))
    told = np.array([score(grid.decode(p.tolist())) for p in points])
    sizes = Sizes.tabulated(grid, size, np.random.default_rng(0))
    model = ScoreModel(Shape.plain(grid.counts.tolist()), points, told, 0.0, sizes)
    everything = grid.everything()
    true = np.array([score(grid.decode(p.tolist())) for p in everything])
    mean, deviation = model.predict(everything)
    assert np.abs(mean - true).mean() < 4  # of 80
    assert (np.abs(mean - true) < 3 * deviation + 1).mean() > 0.95


def test_a_profile_reveals_the_sensitive_part_before_the_first_trial():
    losses = [np.array([1.0, 0.1, 0.0]), np.array([0.01, 0.001, 0.0])]
    points = np.array([[2, 2], [0, 0]])
    told = np.array([80.0, 5.0])
    model = ScoreModel(Shape.profiled(losses), points, told, 0.0, lambda some: some.sum(1))
    mean, _ = model.predict(np.array([[2, 0], [0, 2]]))
    assert mean[0] > 70
    assert mean[1] < 20


def test_a_constraint_of_many_trials_is_fitted_to_those_near_what_breaks_it(monkeypatch):
    grid, rng = Grid(dict.fromkeys("abcdef", range(8))), np.random.default_rng(0)
    points = grid.random(500, rng)
    broken = points.sum(1) > 30
    values = np.where(broken, 1.0, -1.0)
    found = {}
    for most in (1000, 200):
        monkeypatch.setattr(proposal, "MAX_LIMIT_TRIALS", most)
        found[most] = proposal._constraint(grid, points, values)
    assert len(found[200]._process.values) == 200
    some = grid.random(200, rng)
    clear = np.abs(some.sum(1) - 30) > 5
    whole, few = (found[most].probability(some[clear]) > 0.5 for most in (1000, 200))
    assert np.mean(whole == few) > 0.95
