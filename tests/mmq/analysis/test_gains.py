import numpy as np
import pytest

from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import Point
from mmq.analysis.gains import gain_over_rules

RULES = {"vit=4 llm=4": "uniform 4", "vit=3 llm=3": "uniform 3"}
PICTURES = [str(k) for k in range(200)]


def samples(*correct):
    """One score per picture; correct: how many of 200, from the first on."""
    return {name: [1.0] * n + [0.0] * (200 - n) for name, n in correct}


def gain(table, sizes, budget=None, rules=RULES):
    points = [Point(name, sizes[name], 100 * float(np.mean(own))) for name, own in table.items()]
    return gain_over_rules(points, rules, budget or Budget(), 100, table.get, PICTURES, 0.0)


SIZES = {"vit=16 llm=16": 16.0, "vit=4 llm=4": 4.0, "vit=3 llm=3": 3.0, "vit=6 llm=3": 3.8}


def test_an_answer_that_is_a_rule_gained_nothing():
    table = samples(("vit=16 llm=16", 180), ("vit=4 llm=4", 180), ("vit=6 llm=3", 150))
    result = gain(table, SIZES)
    assert result.best == result.rule
    assert result.text.startswith(
        "The search gained nothing over the best rule of thumb, uniform 4, at no more bits: "
        "no evaluated allocation scores better than the rule (4.000 bpw, score 90)."
    )


def test_a_large_gain_is_certain_and_names_both_allocations():
    table = samples(("vit=16 llm=16", 180), ("vit=4 llm=4", 120), ("vit=6 llm=3", 170))
    result = gain(table, SIZES)
    assert result.difference.score == pytest.approx(25, abs=1)
    assert result.is_certain
    assert result.text.startswith("The search gained +24.9 of the score (95% interval")
    assert "over the best rule of thumb, uniform 4, at no more bits: vit=6 llm=3 (3.800" in (
        result.text
    )


def test_a_gain_that_other_pictures_may_not_show_is_called_uncertain():
    table = samples(("vit=16 llm=16", 180), ("vit=4 llm=4", 120), ("vit=6 llm=3", 121))
    result = gain(table, SIZES)
    assert not result.is_certain
    assert result.text.startswith("The search gained nothing certain over")


def test_the_best_of_many_equals_is_corrected_for_the_choice():
    rng = np.random.default_rng(0)
    names = [f"vit={v} llm={w}" for v in (2, 3, 5, 6, 7, 8) for w in (2, 3, 5, 6, 7, 8)]
    table = {name: (rng.random(200) < 0.6).astype(float).tolist() for name in names}
    table["vit=4 llm=4"] = (rng.random(200) < 0.6).astype(float).tolist()
    sizes = dict.fromkeys(table, 3.5) | {"vit=4 llm=4": 4.0}
    result = gain(table, sizes, rules={"vit=4 llm=4": "uniform 4"})
    assert result.difference.score < result.best.score - result.rule.score - 1
    assert not result.is_certain


def test_the_rule_to_beat_is_the_smallest_that_meets_the_bound():
    table = samples(("vit=16 llm=16", 180), ("vit=4 llm=4", 180), ("vit=3 llm=3", 179))
    assert gain(table, SIZES).name == "uniform 3"
    assert gain(table, SIZES, Budget(max_bpw=4.5)).name == "uniform 4"


def test_bytes_saved_at_the_required_score_lead_if_no_gain_in_score_is_certain():
    table = samples(("vit=16 llm=16", 180), ("vit=4 llm=4", 180), ("vit=6 llm=3", 179))
    result = gain(table, SIZES)
    assert result.text == (
        "The search saved 5.0% of the bits of the best rule of thumb, uniform 4, with the "
        "required score: vit=6 llm=3 (3.800 bpw) scores 89.5, the rule (4.000 bpw) 90: -0.5 of "
        f"the score (95% interval {result.loss.low:+.3g} to +0, 200 pictures, paired). At no more "
        "bits than the rule, no evaluated allocation scores better."
    )
    assert result.to_json()["saved_share"] == pytest.approx(0.05)


def test_a_certain_gain_in_score_leads_and_bytes_saved_follow():
    table = samples(("vit=16 llm=16", 199), ("vit=4 llm=4", 198), ("vit=6 llm=3", 198))
    table["vit=5 llm=4"] = [1.0] * 200
    table["vit=4 llm=4"] = [0.0] * 2 + [1.0] * 198
    table["vit=16 llm=16"] = [1.0] * 200
    result = gain(table, SIZES | {"vit=5 llm=4": 3.9})
    assert result.best.allocation == "vit=5 llm=4"
    assert result.smallest.allocation == "vit=6 llm=3"
    assert "5.0% of the " in result.text


def test_the_smallest_rule_above_a_bound_that_scores_as_much_is_named():
    table = samples(
        ("vit=16 llm=16", 180), ("vit=3 llm=3", 20), ("vit=6 llm=3", 150), ("vit=4 llm=4", 170)
    )
    result = gain(table, SIZES, Budget(max_bpw=3.9))
    assert result.name == "uniform 3"
    assert result.is_certain
    assert "over the best rule of thumb, uniform 3, within 3.9 bpw: vit=6 llm=3" in result.text
    assert result.text.endswith(
        "The rule uniform 4 takes 5.3% more bits (4.000 bpw) and scores 85."
    )
    assert result.to_json()["next_rule_allocation"] == "vit=4 llm=4"
    assert gain(table, SIZES, Budget(max_bpw=4.5)).next_rule is None


def test_of_rules_above_a_bound_that_all_score_less_the_best_is_named():
    table = samples(("vit=3 llm=3", 20), ("vit=6 llm=3", 180), ("vit=4 llm=4", 170))
    table |= samples(("vit=8 llm=8", 160))
    rules = RULES | {"vit=8 llm=8": "uniform 8"}
    result = gain(table, SIZES | {"vit=8 llm=8": 8.0}, Budget(max_bpw=3.9), rules)
    assert result.next_name == "uniform 4"


def test_a_long_allocation_is_written_with_lists_of_widths():
    name = "vit.front=2 vit.middle=3 vit.end=2 llm.attn=3 llm.ff=4"
    table = samples(("vit=3 llm=3", 20), (name, 180))
    text = gain(table, SIZES | {name: 2.9}).text
    assert "vit=2/2/3/3/2/2 llm=3/4/3/4/3/4 (2.900 bpw) scores 90" in text


def test_without_scores_per_sample_the_certainty_is_unknown():
    points = [Point(name, size, 50 + size) for name, size in SIZES.items()]
    points[3] = Point("vit=6 llm=3", 3.8, 60.0)
    result = gain_over_rules(points, RULES, Budget(), 100, lambda name: None, [])
    assert "certainty is unknown" in result.text


def test_without_an_evaluated_rule_there_is_nothing_to_compare():
    assert gain(samples(("vit=6 llm=3", 100)), SIZES) is None
