"""Selections by budgets, on points with made-up samples."""

from dataclasses import replace

import numpy as np
import pytest

from mmq.analysis.budgets import Budget
from mmq.analysis.evidence import UNSURE, about, pictures_to_detect
from mmq.analysis.fronts import Point, axis_of, comparable, on_axis, pareto_front, verdict
from mmq.analysis.selection import select
from mmq.errors import InputError

N = 400
PICTURES = [str(k // 2) for k in range(N)]
PARAMETERS = 8 * 1024**3  # a bit a weight is a GiB


def right(share, seed=0):
    """Samples that are right or wrong; nested: a lower score errs wherever higher ones do."""
    order = np.random.default_rng(seed).permutation(N)
    return (order < round(share * N)).astype(float).tolist()


SCORES = {
    "vit=16 llm=16": (16.0, 0.80),
    "vit=8 llm=8": (8.2, 0.80),
    "vit=4 llm=4": (4.4, 0.795),
    "vit=4 llm=3": (3.8, 0.75),
    "vit=3 llm=3": (3.4, 0.74),
    "vit=2 llm=2": (2.5, 0.05),
}
SAMPLES = {name: right(share) for name, (_, share) in SCORES.items()}
POINTS = [Point(n, bpw, 100 * s, stored_bpw=bpw + 0.1) for n, (bpw, s) in SCORES.items()]


def selections_for(**options):
    return select(POINTS, Budget.parse(**options), PARAMETERS, SAMPLES.get, PICTURES)


def test_the_best_under_a_size_comes_with_its_rival():
    (answer,) = selections_for(max_bpw="4")
    assert answer.point.allocation == "vit=4 llm=3"
    assert answer.alias == "best-under-4-bpw"
    assert "93.8% of the unquantized score kept (95% interval 9" in answer.text
    assert "Of 3 evaluated that fit, it is the best in" in answer.text


def test_the_best_of_one_is_not_called_sure():
    (answer,) = selections_for(max_bpw="3")
    assert answer.point.allocation == "vit=2 llm=2"
    assert answer.text.endswith("Nothing else that fits was evaluated.")


def test_where_no_picture_changed_the_possible_share_is_reported():
    name = "vit=4 llm=4"
    (answer,) = select(
        [Point("vit=16 llm=16", 16, 80), Point(name, 4.2, 80)],
        Budget.parse(),
        PARAMETERS,
        lambda _: SAMPLES[name],
        PICTURES,
    )
    pictures = len(set(PICTURES))
    assert f"{pictures} pictures, paired). No picture's score changed; of other" in answer.text
    share = float(answer.text.split("up to ")[1].split("%")[0]) / 100
    assert (1 - share) ** pictures == pytest.approx(0.05, rel=0.1)


def test_allocations_without_scores_of_samples_are_not_counted_in_chances():
    def known(*names):
        return lambda name: SAMPLES[name] if name in names else None

    def best(*names):
        budget = Budget.parse(max_bpw="4")
        return select(POINTS, budget, PARAMETERS, known(*names), PICTURES)[0].text

    assert "Of 3 evaluated that fit, it is the best" in best(*SAMPLES)
    two = best("vit=4 llm=3", "vit=3 llm=3")
    assert "Of 2 evaluated that fit and have scores per sample, it is the best in" in two
    assert best("vit=4 llm=3").endswith("It is the best of 3 evaluated. " + UNSURE)
    assert best().endswith("It is the best of 3 evaluated. " + UNSURE)


def test_a_stored_size_counts_scales():
    (answer,) = selections_for(max_gib="4.4")
    assert answer.point.allocation == "vit=4 llm=3"
    (answer,) = selections_for(max_gib="4.5")
    assert answer.point.allocation == "vit=4 llm=4"


def test_the_smallest_within_a_drop_names_the_smallest_certain_one():
    (answer,) = selections_for(max_drop="1%")
    assert answer.point.allocation == "vit=4 llm=4"
    assert answer.alias == "smallest-within-1-percent"
    assert 0.5 < answer.chance < 0.95
    # no picture of vit=8 llm=8 lost, but 200 pictures show 1% with 87% only: 1 - 0.99^200
    assert "none of those evaluated reaches 95%" in answer.text
    (answer,) = selections_for(max_drop="2%")
    assert answer.point.allocation == "vit=4 llm=4"
    if not answer.sure:
        assert (
            "the smallest that reaches 95%: vit=8 llm=8 (8.200 bpw, 8.300 stored)" in answer.text
        )


def test_without_a_budget_the_smallest_within_one_percent_is_selected():
    assert selections_for()[0].text == selections_for(max_drop="1%")[0].text


def test_a_drop_in_points_and_a_minimum_score_are_equivalent_bounds():
    assert selections_for(max_drop="5")[0].point.allocation == "vit=4 llm=3"
    assert selections_for(min_score="74")[0].point.allocation == "vit=3 llm=3"
    assert "in 100% of resamples" in selections_for(min_score="20")[0].text


def test_both_bounds_give_both_selections():
    best, smallest = selections_for(max_bpw="4", max_drop="10%")
    assert best.criterion == "best under 4 bpw within 10%"
    assert (best.point.allocation, smallest.point.allocation) == ("vit=4 llm=3", "vit=3 llm=3")


def test_budgets_without_a_selection_are_reported():
    assert (
        "None of 6 evaluated allocations fits; the smallest has 2.500 bpw, 2.600 stored"
        in selections_for(max_bpw="2")[0].text
    )
    best, smallest = selections_for(max_bpw="3", max_drop="1%")
    assert best.point is None
    assert "the best scores 5: vit=2 llm=2" in smallest.text


def test_a_score_without_samples_is_answered_without_chances():
    (answer,) = select(POINTS, Budget(max_bpw=4), PARAMETERS, lambda name: None, PICTURES)
    assert "It is the best of 3 evaluated" in answer.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bpw": "four"}, "max-bpw: 'four' is not a number"),
        ({"max_drop": "x%"}, "max-drop: 'x' is not 1% or 0.5"),
        ({"max_drop": "%"}, "max-drop: '%' is not"),
        ({"max_drop": "1%%"}, "max-drop: '1%' is not"),
        ({"max_drop": "150%"}, "more than all of the score"),
        ({"max_drop": "100%"}, "max-drop: 100% is all of the score"),
        ({"max_drop": "0%"}, "max-drop: 0.0 is not above 0; no number of samples can show"),
        ({"max_gib": "-2"}, "max-size-gib: -2.0 is not above 0"),
        ({"min_score": "nan"}, "min-score: 'nan' is not a score"),
        ({"max_bpw": "inf"}, "max-bpw: 'inf' is not a number"),
        ({"max_bpw": "-1"}, "max-bpw: -1.0 is not above 0"),
        ({"max_drop": "1%", "min_score": "3"}, "give one of them, not both"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Budget.parse(**options)


def test_a_score_that_every_picture_keeps_is_certain():
    old = np.random.default_rng(2).uniform(0.1, 1, N)
    samples = {"vit=16": old.tolist(), "vit=4": (0.9 * old).tolist()}
    points = [Point(n, b, 100 * np.mean(samples[n])) for n, b in (("vit=16", 16), ("vit=4", 4))]
    (answer,) = select(points, Budget.parse(max_drop="10.1%"), 1, samples.get, PICTURES)
    assert "90.0% of the unquantized score kept (95% interval 90.0% to 90.0%" in answer.text
    assert "in 100% of resamples" in answer.text


def test_the_smaller_of_two_equal_allocations_is_selected_and_the_tie_reported():
    points = [Point("vit=8", 8, 80), Point("vit=4", 4, 80), Point("vit=2", 2, 10)]
    same = {"vit=8": right(0.8), "vit=4": right(0.8), "vit=2": right(0.1)}
    (answer,) = select(points, Budget(max_bpw=9), 1, same.get, PICTURES)
    assert answer.point.allocation == "vit=4"
    assert "1 other that fits scores the same and is not smaller: vit=8." in answer.text
    assert "one of them is the best in 100% of resamples" in answer.text
    assert "it is the best" not in answer.text
    more = [*points, Point("vit=6", 6, 80)]
    (answer,) = select(more, Budget(max_bpw=9), 1, lambda _: None, PICTURES)
    assert "2 others that fit score the same and are not smaller." in answer.text


def few(n, changed=0):
    """The unquantized model right on all but one of n pictures, and one that errs on more."""
    old = [0.0] + [1.0] * (n - 1)
    new = [0.0] * (1 + changed) + [1.0] * (n - 1 - changed)
    samples = {"vit=16": old, "vit=4": new}
    points = [Point(name, b, 100 * np.mean(samples[name]))
              for name, b in (("vit=16", 16), ("vit=4", 4.2))]  # fmt: skip
    return points, samples.get, [str(k) for k in range(n)]


@pytest.mark.parametrize("n", [20, 50, 200])
def test_too_few_samples_to_show_one_percent_are_reported(n):
    points, per_sample, pictures = few(n)
    (answer,) = select(points, Budget(), 1, per_sample, pictures)
    assert not answer.sure
    assert answer.chance == pytest.approx(1 - 0.99**n)
    assert "in 100% of resamples" not in answer.text
    low = float(answer.text.split("95% interval ")[1].split("%")[0]) / 100
    assert (low) ** n == pytest.approx(0.05, rel=0.1)  # room for what no picture shows
    assert "About 300 pictures would show a loss of 1%." in answer.text
    text = verdict(points, answer.chance)
    assert "keeps" not in text
    assert "too few samples to be sure of 99%" in text


def test_enough_unchanged_pictures_prove_the_bound():
    points, per_sample, pictures = few(299)
    (answer,) = select(points, Budget(), 1, per_sample, pictures)
    assert answer.sure
    assert "299 pictures are enough to show a loss of 1%." in answer.text
    assert verdict(points, answer.chance) == "4.2 bpw keeps 99% of the score: vit=4"


def test_observed_gains_alone_do_not_rule_out_a_loss():
    points, samples, pictures = few(20, changed=1)
    better = [replace(p, allocation=a) for p, a in zip(points, ("vit=4", "vit=16"), strict=True)]
    swapped = {"vit=16": samples("vit=4"), "vit=4": samples("vit=16")}
    better = [replace(p, bpw=4.2 if p.allocation == "vit=4" else 16) for p in better]
    (answer,) = select(better, Budget(), 1, swapped.get, pictures)
    assert "105.6% of the unquantized score (95% interval 86.1% to" in answer.text
    assert "No picture lost; of other pictures, up to 13.9% may." in answer.text
    assert not answer.sure


def test_a_score_that_all_pictures_reach_is_not_sure_for_other_pictures():
    samples = {"vit=16": [1.0] * 20, "vit=4": [1.0] * 20}
    points = [Point("vit=16", 16, 100), Point("vit=4", 4, 100)]
    pictures = [str(k) for k in range(20)]
    (answer,) = select(points, Budget(min_score=90), 1, samples.get, pictures)
    assert answer.chance == pytest.approx(1 - 0.9**20)


def test_scores_not_above_the_floor_are_not_selected():
    points = [Point("vit=16", 16, 80, 70, 90), Point("vit=3", 3, 2, 0, 5), Point("vit=2", 2, 0)]
    (answer,) = select(points, Budget(max_bpw=4), 1, lambda _: None, [], floor=0)
    assert answer.point is None
    assert "the best scores 2, which is not significantly above 0: vit=3" in answer.text
    (answer,) = select(points, Budget(max_bpw=4), 1, lambda _: None, [])
    assert answer.point.allocation == "vit=3"  # of a metric whose least score is not known


def test_metrics_below_zero_have_no_shares():
    points = [Point("vit=16", 16, -2.0), Point("vit=4", 4, -2.01), Point("vit=3", 3, -2.5)]
    (answer,) = select(points, Budget(), 1, lambda _: None, [])
    assert answer.point.allocation == "vit=4"
    assert "It scores -0.01 against unquantized." in answer.text


@pytest.mark.parametrize(("lose", "gain"), [(0.08, 0.24), (0.05, 0.12)])
def test_the_suggested_number_of_pictures_finds_the_loss_four_times_out_of_five(lose, gain):
    rng = np.random.default_rng(3)

    def drawn(*shape):
        old = rng.random(shape) < 0.8
        chance = rng.random(shape)
        new = np.where(old, chance >= lose, chance < gain)
        return new.astype(float), old.astype(float)

    new, old = drawn(200_000)
    drop = lose - 0.25 * gain  # of all pictures
    count = pictures_to_detect(new, old, drop)
    new, old = drawn(1000, count)  # 1,000 sets of so many pictures
    share = new.sum(1) / old.sum(1)
    rest = new - share[:, None] * old
    error = rest.std(1, ddof=1) / old.mean(1) / np.sqrt(count)
    assert 0.77 < (share + 1.96 * error < 1).mean() < 0.83


def test_numbers_are_rounded_up_to_two_digits():
    assert [about(n) for n in (7, 37, 299, 1512, 160_001)] == [
        "7", "37", "300", "1,600", "170,000"
    ]  # fmt: skip


def test_one_front_has_one_size():
    stored = Point("vit=4", 4, 80, stored_bpw=5)
    plain = Point("vit=3", 3, 70)
    assert [p.size for p in comparable([stored, plain])] == [4, 3]
    with pytest.raises(InputError, match="some of these trials have no stored size"):
        axis_of([stored, plain])
    (nominal,) = on_axis([stored], "nominal")
    assert (stored.size, nominal.size) == (5, 4)


def test_a_front_by_stored_sizes_can_be_another_one():
    groups = Point("vit=3", 3, 80, stored_bpw=5)
    rows = Point("vit=4", 4, 80, stored_bpw=4.1)
    assert pareto_front([groups, rows]) == [rows]
    assert [p.allocation for p in pareto_front(on_axis([groups, rows], "nominal"))] == ["vit=3"]
