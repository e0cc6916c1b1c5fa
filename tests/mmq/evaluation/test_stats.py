import numpy as np
import pytest

from mmq.analysis.fronts import Point, pareto_front, smallest_keeping, verdict
from mmq.evaluation.stats import corpus_metrics, equal_interval, mean_metric


def test_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        values = rng.normal(3.0, 1.0, 60)
        metric = mean_metric(values, [str(k) for k in range(60)], seed=seed)
        hits += metric.low <= 3.0 <= metric.high
    assert 180 <= hits <= 199  # percentile intervals of 60 samples cover a little less than 95%


def test_samples_of_one_picture_count_as_one_draw():
    values = list(np.random.default_rng(1).normal(size=50)) * 4
    apart = mean_metric(values, [str(k) for k in range(200)])
    together = mean_metric(values, [str(k % 50) for k in range(200)])
    ratio = (together.high - together.low) / (apart.high - apart.low)
    assert 1.7 < ratio < 2.3  # four copies of a picture carry no new information: sqrt(4)


def test_one_picture_has_no_interval():
    metric = mean_metric([1.0, 0.0], ["a", "a"])
    assert (metric.value, metric.low, metric.high) == (0.5, None, None)


@pytest.mark.parametrize("n", [4, 20, 1000])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_score_at_the_floor_or_the_ceiling_has_wilsons_interval(value, n):
    metric = mean_metric([value] * n, [str(k) for k in range(n)], scale=100)
    z2 = 1.959964**2
    p, center = value, (value + z2 / (2 * n)) / (1 + z2 / n)
    half = 1.959964 / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    assert metric.value == 100 * value
    assert metric.low == pytest.approx(100 * (center - half), abs=1e-4)
    assert metric.high == pytest.approx(100 * (center + half), abs=1e-4)


def test_an_interval_at_the_floor_counts_pictures_not_samples():
    together = mean_metric([0.0] * 40, [str(k % 10) for k in range(40)])
    apart = mean_metric([0.0] * 10, [str(k) for k in range(10)])
    assert (together.low, together.high) == (apart.low, apart.high)
    assert together.n == 40


def test_equal_values_between_their_bounds_may_have_missed_both_ends():
    metric = mean_metric([4.0] * 16, [str(k) for k in range(16)], bounds=(0, 10))
    share = equal_interval(0, 16, (0, 1))[1]
    assert metric.low == pytest.approx(4 - 4 * share)
    assert metric.high == pytest.approx(4 + 6 * share)


def test_equal_values_without_bounds_have_no_interval_instead_of_one_without_width():
    metric = mean_metric([7.0] * 4, ["a", "b", "c", "d"])
    assert (metric.value, metric.low, metric.high) == (7.0, None, None)


def test_a_ratio_that_never_varies_has_an_interval_though_its_sums_do():
    hits = np.array([[5.0, 5.0], [3.0, 3.0], [4.0, 4.0]])  # all texts of every picture are found
    (metric,) = corpus_metrics(hits, ["a", "b", "c"], lambda t: t[:1] / t[1], bounds=(0, 1))
    assert metric.high == 1.0
    assert metric.low == pytest.approx(1 - equal_interval(0, 3, (0, 1))[1])


def test_intervals_at_the_ceiling_cover_the_true_share():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        values = (rng.random(30) < 0.97).astype(float)
        metric = mean_metric(values, [str(k) for k in range(30)])
        hits += metric.low <= 0.97 <= metric.high
    assert hits >= 250  # without Wilson's 40% of the draws, all right, would miss it


def points(*rows):
    return [Point(name, bpw, score) for name, bpw, score in rows]


def test_the_front_is_the_set_of_non_dominated_points():
    front = pareto_front(
        points(("a", 4, 50), ("b", 3, 50), ("c", 5, 40), ("d", 5, 60), ("e", 2, 10), ("f", 3, 20))
    )
    assert [p.allocation for p in front] == ["e", "b", "d"]


def test_verdict_names_the_smallest_that_keeps_99_percent():
    trials = points(
        ("vit=16 llm=16", 16, 80), ("vit=8 llm=4", 6, 79.3), ("vit=4 llm=4", 4.6, 79.2),
        ("vit=3 llm=4", 4.2, 79.1),
    )  # fmt: skip
    assert smallest_keeping(trials).allocation == "vit=4 llm=4"
    assert verdict(trials) == "4.6 bpw keeps 99% of the score: vit=4 llm=4"


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        (points(("vit=4 llm=4", 4, 1)), "none of them unquantized"),
        (points(("vit=16 llm=16", 16, 0), ("vit=4 llm=4", 4, 0)), "no loss can be measured"),
        (points(("vit=16 llm=16", 16, 80), ("vit=4 llm=4", 4, 10)), "no quantized allocation"),
    ],
)
def test_verdict_says_when_there_is_none(trials, expected):
    assert expected in verdict(trials)
