"""Measures of a front."""

import pytest

from mmq.analysis.fronts import Cost, Point, hypervolume, size_metric

UNQUANTIZED = Point("llm=16", 16, 80, stored_bpw=16)
HALF = Point("llm=8", 8, 80, stored_bpw=8)
QUARTER = Point("llm=4", 4, 40, stored_bpw=4)


@pytest.mark.parametrize(
    ("points", "floor", "volume"),
    [
        ([UNQUANTIZED], None, 0.0),
        ([UNQUANTIZED, HALF], None, 0.5),
        ([UNQUANTIZED, HALF, QUARTER], None, 0.625),
        ([UNQUANTIZED, HALF, QUARTER], 40.0, 0.5),  # a score at the floor adds nothing
        ([HALF, QUARTER], None, None),
        ([UNQUANTIZED, HALF], 80.0, None),
    ],
)
def test_the_hypervolume_is_the_dominated_share_of_size_and_score(points, floor, volume):
    assert hypervolume(points, floor) == (None if volume is None else pytest.approx(volume))


def test_a_front_is_drawn_over_the_metric_that_it_compares():
    assert size_metric([HALF]) == size_metric([]) == "stored_bpw"
    assert size_metric([Point("llm=8", 8, 80)]) == "bpw"
    assert size_metric([Point("llm=8", 8, 80, cost=Cost("gguf", 1.0))]) == "size/target_gib"
    assert size_metric([Point("llm=8", 8, 80, cost=Cost("gguf", 1.0, 5.0))]) == "latency/ms"
