"""Answers to bounded questions, on points with made-up samples."""

import numpy as np
import pytest

from mmq.analysis.answers import UNSURE, Budget, answers
from mmq.analysis.fronts import Point
from mmq.errors import InputError

N = 400
PICTURES = [str(k // 2) for k in range(N)]
PARAMETERS = 8 * 1024**3  # a bit a weight is a GiB


def right(share, seed=0):
    """Samples that are right or wrong; nested: who scores less errs wherever the others do."""
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


def asked(**options):
    return answers(POINTS, Budget.parse(**options), PARAMETERS, SAMPLES.get, PICTURES)


def test_the_best_under_a_size_comes_with_its_rival():
    (answer,) = asked(max_bpw="4")
    assert answer.point.allocation == "vit=4 llm=3"
    assert answer.alias == "best-under-4-bpw"
    assert "93.8% of the unquantized score kept (95% interval 9" in answer.text
    assert "Of 3 evaluated it is the best in" in answer.text


def test_the_best_of_one_is_not_called_sure():
    (answer,) = asked(max_bpw="3")
    assert answer.point.allocation == "vit=2 llm=2"
    assert answer.text.endswith("Nothing else that fits was evaluated.")


def test_where_no_picture_changed_it_is_told_how_many_may():
    name = "vit=4 llm=4"
    (answer,) = answers(
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
        return answers(POINTS, budget, PARAMETERS, known(*names), PICTURES)[0].text

    assert "Of 3 evaluated it is the best" in best(*SAMPLES)
    two = best("vit=4 llm=3", "vit=3 llm=3")
    assert "Of 2 evaluated that have a score of every sample it is the best in" in two
    assert best("vit=4 llm=3").endswith("It is the best of 3 evaluated. " + UNSURE)
    assert best().endswith("It is the best of 3 evaluated. " + UNSURE)


def test_a_stored_size_counts_scales():
    (answer,) = asked(max_gib="4.4")
    assert answer.point.allocation == "vit=4 llm=3"
    (answer,) = asked(max_gib="4.5")
    assert answer.point.allocation == "vit=4 llm=4"


def test_the_smallest_within_a_drop_says_which_surely_is():
    (answer,) = asked(max_drop="1%")
    assert answer.point.allocation == "vit=4 llm=4"
    assert answer.alias == "smallest-within-1-percent"
    chance = int(answer.text.split("It is within 1% in ")[1].split("%")[0])
    assert 50 < chance < 100
    if chance < 95:
        assert "the smallest that is in 95%: vit=8 llm=8 (8.200 bpw)" in answer.text


def test_without_a_question_the_smallest_within_one_percent_is_told():
    assert asked()[0].text == asked(max_drop="1%")[0].text


def test_a_drop_in_points_and_a_score_are_other_ways_to_ask():
    assert asked(max_drop="5")[0].point.allocation == "vit=4 llm=3"
    assert asked(min_score="74")[0].point.allocation == "vit=3 llm=3"
    assert "in 100% of resamples" in asked(min_score="20")[0].text


def test_both_bounds_give_both_answers():
    best, smallest = asked(max_bpw="4", max_drop="10%")
    assert best.question == "best under 4 bpw within 10%"
    assert (best.point.allocation, smallest.point.allocation) == ("vit=4 llm=3", "vit=3 llm=3")


def test_what_nothing_answers_is_said():
    assert (
        "None of 6 evaluated allocations fits; the smallest has 2.500"
        in asked(max_bpw="2")[0].text
    )
    best, smallest = asked(max_bpw="3", max_drop="1%")
    assert best.point is None
    assert "the best scores 5: vit=2 llm=2" in smallest.text


def test_a_score_without_samples_is_answered_without_chances():
    (answer,) = answers(POINTS, Budget(max_bpw=4), PARAMETERS, lambda name: None, PICTURES)
    assert "It is the best of 3 evaluated" in answer.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_bpw": "four"}, "max-bpw: 'four' is not a number"),
        ({"max_drop": "x%"}, "max-drop: 'x' is not 1% or 0.5"),
        ({"max_drop": "%"}, "max-drop: '%' is not"),
        ({"max_drop": "1%%"}, "max-drop: '1%' is not"),
        ({"max_drop": "150%"}, "more than all of the score"),
        ({"min_score": "nan"}, "min-score: 'nan' is not a number"),
        ({"max_bpw": "inf"}, "max-bpw: 'inf' is not a number"),
        ({"max_bpw": "-1"}, "max-bpw: -1.0 is not above 0"),
        ({"max_drop": "1%", "min_score": "3"}, "give one of them, not both"),
    ],
)
def test_nonsense_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        Budget.parse(**options)


def test_what_every_picture_keeps_is_sure():
    old = np.random.default_rng(2).uniform(0.1, 1, N)
    samples = {"vit=16": old.tolist(), "vit=4": (0.9 * old).tolist()}
    points = [Point(n, b, 100 * np.mean(samples[n])) for n, b in (("vit=16", 16), ("vit=4", 4))]
    (answer,) = answers(points, Budget.parse(max_drop="10.1%"), 1, samples.get, PICTURES)
    assert "90.0% of the unquantized score kept (95% interval 90.0% to 90.0%" in answer.text
    assert "in 100% of resamples" in answer.text


def test_of_equals_the_smaller_one_wins_every_resample():
    points = [Point("vit=8", 8, 80), Point("vit=4", 4, 80)]
    same = dict.fromkeys(("vit=8", "vit=4"), right(0.8))
    (answer,) = answers(points, Budget(max_bpw=9), 1, same.get, PICTURES)
    assert answer.point.allocation == "vit=4"
    assert "it is the best in 100% of resamples" in answer.text
