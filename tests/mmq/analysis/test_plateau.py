"""Scores near the best one are enlarged where an axis of all scores hides their differences."""

from mmq.analysis.plateau import plateau


def test_the_scores_from_95_percent_of_the_best_are_the_plateau():
    assert plateau([80, 79.5, 78, 75, 20]) == (78, 80)


def test_scores_that_the_axis_resolves_have_no_plateau():
    assert plateau([20, 30, 40, 50]) is None  # too few near the best
    assert plateau([80, 79, 78, 77]) is None  # they take all of the axis
    assert plateau([80, 80, 80, 20]) is None  # equal
    assert plateau([]) is None
    assert plateau([0, 0, 0, -1]) is None
