"""Measured trials are compared by their share of the unquantized model's time."""

from dataclasses import replace

from mmq.analysis.measured import MeasuredPoint, front, latency, measured_figure

SLOW = MeasuredPoint("vit=8 llm=8", 90.0, 85.0, 95.0, 8e6, 2.0, 1.9, 2.5, 0.8, 0.7, 0.9)
FAST = MeasuredPoint("vit=4 llm=4", 80.0, 75.0, 85.0, 4e6, 3.0, 2.9, 3.5, 0.5, 0.4, 0.6)
WORSE = MeasuredPoint("vit=4 llm=8", 70.0, None, None, 6e6, 1.0, 0.9, 1.5, 0.6, 0.5, 0.7)


def test_the_front_of_latency_is_not_that_of_bytes():
    smaller_but_slow = replace(FAST, ratio=0.9)
    points = [SLOW, smaller_but_slow]
    _, median, _, _ = latency(points)
    assert front(points, median) == [SLOW]
    assert front(points, lambda p: p.file_bytes) == [smaller_but_slow, SLOW]


def test_seconds_are_compared_only_where_some_trial_has_no_ratio():
    assert latency([SLOW, FAST])[0].startswith("time per answer, as a share of")
    label, median, least, most = latency([SLOW, replace(FAST, ratio=None)])
    assert label == "seconds per answer"
    assert (least(SLOW), median(SLOW), most(SLOW)) == (1.9, 2.0, 2.5)


def test_both_costs_are_drawn_side_by_side(tmp_path):
    figure = measured_figure([SLOW, FAST, WORSE], "score", "mine", unquantized=92.0)
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["exported files (MiB)", latency([SLOW])[0]]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [
        "unquantized: 92", "front", "measured trials (3), 95% intervals; ranges of time",
        "vit=4 llm=4", "vit=8 llm=8",
    ]  # fmt: skip
    for axes in figure.axes:
        assert [text.get_text() for text in axes.texts] == ["1", "2"]
    figure.savefig(tmp_path / "figure.png")
