"""The additive solver against all choices of small spaces."""

import itertools
import random

import pytest
from mmq_search.front_sampler.knapsack import Solution, additive_front


def made_up(rng, parts, levels, unit):
    sizes = [[unit * w * rng.randint(1, 9) for w in range(1, levels + 1)] for _ in range(parts)]
    losses = [sorted((rng.random() for _ in range(levels)), reverse=True) for _ in range(parts)]
    return sizes, losses


def all_choices(sizes, losses):
    for levels in itertools.product(*(range(len(row)) for row in sizes)):
        size = sum(row[k] for row, k in zip(sizes, levels, strict=True))
        yield Solution(size, sum(row[k] for row, k in zip(losses, levels, strict=True)), levels)


def least_loss(solutions, size):
    return min((s.loss for s in solutions if s.size <= size), default=float("inf"))


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_that_of_all_choices(seed):
    rng = random.Random(seed)
    parts, levels = rng.choice([(1, 7), (2, 7), (4, 4), (6, 3)])
    sizes, losses = made_up(rng, parts, levels, unit=rng.choice([1, 1024]))
    everything = list(all_choices(sizes, losses))
    front = additive_front(sizes, losses)
    assert [s.size for s in front] == sorted({s.size for s in front})
    for result in front:
        match = next(s for s in everything if s.levels == result.levels)
        assert (result.size, result.loss) == (match.size, pytest.approx(match.loss))
    for each in everything:
        assert least_loss(front, each.size) <= each.loss + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_with_few_bins_a_solution_is_at_most_one_bin_per_part_too_large(seed):
    rng = random.Random(seed)
    sizes, losses = made_up(rng, 5, 4, unit=1)
    sizes = [[1000 * s + rng.randint(0, 999) for s in row] for row in sizes]
    bins = 64
    span = sum(max(row) - min(row) for row in sizes)
    front = additive_front(sizes, losses, bins)
    slack = 5 * -(-span // bins)
    for each in all_choices(sizes, losses):
        assert least_loss(front, each.size + slack) <= each.loss + 1e-12


def test_sixty_parts_of_odd_sizes_are_solved():
    rng = random.Random(0)
    sizes, losses = made_up(rng, 60, 7, unit=1)
    sizes = [[10**6 * s + rng.randint(0, 999) for s in row] for row in sizes]
    front = additive_front(sizes, losses)
    slack = 60 * (sum(max(row) - min(row) for row in sizes) // 2**16 + 1)
    assert front[0].size <= sum(map(min, sizes)) + slack
    assert front[-1].loss == pytest.approx(sum(map(min, losses)))
