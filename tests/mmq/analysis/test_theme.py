"""Titles and axes of figures."""

import pytest

from mmq.analysis import theme


def test_an_axis_of_scores_has_the_range_that_the_evaluator_defines():
    assert theme.score_label("vqa/accuracy", (0, 100)) == "vqa/accuracy (points, 0 to 100)"
    assert theme.score_label("mine/quality", None) == "mine/quality"


def test_a_narrow_figure_has_space_for_its_legend_and_a_wrapped_title():
    figure, (panel,) = theme.panels(1, "word " * 40, width=2)
    for number in range(5):
        panel.plot(
            [0, 1], [0, number], label=f"a rather long name {number}", **theme.style(number)
        )
    theme.legend_below(figure, panel, 5)
    figure.draw_without_rendering()
    edge = figure.bbox.width
    assert figure.get_suptitle().count("\n") >= 2
    assert figure.legends[0].get_window_extent().x1 <= edge
    assert figure._suptitle.get_window_extent().x1 <= edge


@pytest.mark.parametrize("title", ["W" * 300, "a_long_name=3 " * 30, "a $_{$ b", "", "short"])
def test_a_title_fits_the_figure_whatever_its_letters(title):
    figure, _ = theme.panels(1, title)
    figure.draw_without_rendering()
    text = figure._suptitle
    assert text.get_text().split() == title.split() or "W" in title
    assert text.get_window_extent().width <= figure.bbox.width
