"""The figure of a front shows its bounds and selections."""

import pytest

from mmq.analysis.budgets import Budget
from mmq.analysis.front_page import front_page, front_plot
from mmq.analysis.fronts import Point, on_axis
from mmq.analysis.plots import LEGEND, Highlights, front_figure, size_range, uniform_rules
from mmq.analysis.selection import select
from mmq.studies.front import Results, description, log_front, title

GIB = 8 * 1024**3
POINTS = [
    Point("vit=16 llm=16", 16, 80, 75, 85, 16),
    Point("vit=8 llm=8", 8, 80, 75, 85, 8.5),
    Point("vit=4 llm=4", 4.2, 78, 73, 83, 5.1),
    Point("vit=3 llm=3", 3.2, 60, 55, 65, 4.0),
]


def results(points=POINTS, **budget):
    return Results("s", "score", points, lambda _: None, [], Budget(**budget), GIB)


class Run:
    """Records what is logged to a study's run."""

    def __init__(self):
        self.files, self.metrics = {}, {}

    def log_table(self, name, rows):
        self.rows = rows

    def log_folder(self, folder):
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}

    def log(self, metrics, step):
        self.metrics, self.step = metrics, step


def highlighted(most=None, least=None, **budget):
    selections = select(POINTS, Budget(**budget), GIB, lambda _: None, [])
    return Highlights(selections, most, least)


def labels(figure):
    return figure.axes[-1].get_legend_handles_labels()[1]


def test_the_bounds_and_the_selections_are_drawn():
    highlights = highlighted(6.0, 70.0, max_bpw=6.0, min_score=70.0)
    figure = front_figure(POINTS, "score", "title", highlights)
    _, axes = figure.axes
    assert "at most 6 bpw" in labels(figure)
    assert "at least 70" in labels(figure)
    assert sum(line.get_xdata()[0] == 6.0 for line in axes.lines) == 1  # upright
    assert len(axes.patches) == 3  # beyond each bound, and what is enlarged
    named = [label for label in labels(figure) if "vit=4 llm=4" in label]
    assert named == [
        "best under 6 bpw with a score of 70,\nsmallest with a score of 70 under 6 bpw:\n"
        "5.100 stored bpw, vit=4 llm=4"
    ]
    assert "99%" not in " ".join(labels(figure))
    assert axes.get_xlabel().startswith("stored bits per weight")


def test_two_answers_have_two_marks():
    highlights = highlighted(9.0, 50.0, max_bpw=9.0, min_score=50.0)
    figure = front_figure(POINTS, "score", "title", highlights)
    assert len([label for label in labels(figure) if "vit=" in label]) == 2
    plot = front_plot(POINTS, "score", "title", highlights)
    symbols = [trace.marker.symbol for trace in plot.data if trace.name.startswith(("b", "sm"))]
    assert symbols == ["star", "diamond"]


def test_the_interactive_plot_shows_the_same():
    plot = front_plot(
        POINTS, "score", "title", highlighted(6.0, 70.0, max_bpw=6.0, min_score=70.0)
    )
    lines = [shape for shape in plot.layout.shapes if shape.type == "line"]
    assert (6.0, 6.0) in [(line.x0, line.x1) for line in lines]
    assert (70.0, 70.0) in [(line.y0, line.y1) for line in lines]
    assert len([shape for shape in plot.layout.shapes if shape.type == "rect"]) == 2
    assert any("best under 6 bpw" in trace.name for trace in plot.data)


@pytest.mark.parametrize(
    ("budget", "most", "least"),
    [
        ({"max_bpw": 6.0}, 6.0, None),
        ({"max_gib": 6.0}, 6.0, None),  # a GiB is a bit per weight here
        ({"max_bpw": 6.0, "max_gib": 5.2}, 5.2, None),
        ({"max_drop": 0.05, "relative": True}, None, 76.0),
        ({"min_score": 70.0, "max_gib": 7.0}, 7.0, 70.0),
        ({}, None, None),
    ],
)
def test_title_figure_description_and_metrics_agree(monkeypatch, budget, most, least):
    seen = []

    def watched(points, score_name, heading, highlights):
        seen.append((heading, highlights))
        return front_figure(points, score_name, heading, highlights)

    monkeypatch.setattr("mmq.studies.front.front_figure", watched)
    result, run = results(**budget), Run()
    log_front(run, result, interactive=False)
    ((heading, highlights),) = seen
    assert (highlights.most, highlights.least) == (pytest.approx(most), pytest.approx(least))
    (best, *_) = result.selections()
    assert best.point.allocation in heading
    assert best.point.allocation in description(result).partition("\n")[0]
    assert heading == title(result, result.selections())
    assert run.metrics["selection_stored_bpw"] == best.point.stored_bpw
    assert run.files["front.png"][:4] == b"\x89PNG"


def test_figures_without_a_selection_say_so():
    assert title(results(max_bpw=2.0), results(max_bpw=2.0).selections()) == (
        "best under 2 bpw: none\ns"
    )


def test_the_nominal_axis_is_named():
    figure = front_figure(on_axis(POINTS, "nominal"), "score", "title")
    assert figure.axes[-1].get_xlabel().startswith("nominal bits per weight")
    assert (
        Budget(max_gib=5.0).largest(Point("", 4, 0, nominal=True), GIB) is None
    )  # stored bits are not on that axis


def test_a_plateau_that_all_scores_hide_has_a_panel_of_its_own():
    upper, lower = front_figure(POINTS, "score", "title").axes
    assert upper.get_ylim()[0] > 77
    assert lower.get_ylim()[0] < 60
    assert upper.get_ylabel() == lower.get_ylabel() == "score"


def test_scores_that_fill_the_axis_have_one_panel():
    steep = [Point(f"vit={b} llm={b}", b, 10.0 * b) for b in (2, 3, 4, 5)]
    assert len(front_figure(steep, "score", "title").axes) == 1


def test_a_long_allocation_is_a_list_of_widths_in_legend_and_title():
    long = " ".join(f"{c}.{g}.{t}={k + 2}" for c in ("vit", "llm") for g in ("front", "middle")
                    for k, t in enumerate(("attn", "ff")))  # fmt: skip
    points = [POINTS[0], Point(f"{long} vit.end=4 llm.end=4", 4.2, 80, 75, 85, 5.1)]
    (best,) = found = select(points, Budget(max_bpw=6.0), GIB, lambda _: None, [])
    for text in (Highlights(found, 6.0).label(points[1]), best.caption):
        assert "vit=2/3/2/3/4/4 llm=2/3/2/3/4/4" in text
    assert points[1].allocation in best.headline


def test_a_far_unquantized_model_does_not_squeeze_the_trials():
    small = [Point(f"vit={b} llm=2", 3 + b / 10, 10.0 * b) for b in (2, 3, 4)]
    points = [Point("vit=16 llm=16", 16, 50), *small]
    (panel,) = front_figure(points, "score", "title", Highlights(most=3.5)).axes
    assert panel.get_xlim()[0] < 3.2
    assert 3.5 < panel.get_xlim()[1] < 4
    assert "unquantized: 50 (16.000 bpw, not shown)" in labels(panel.figure)
    assert size_range([*points, Point("vit=8 llm=8", 8, 50)], None) is None


def test_the_interactive_plot_starts_at_the_sizes_of_the_quantized_trials():
    small = [Point(f"vit={b} llm=2", 3 + b / 10, 10.0 * b) for b in (2, 3, 4)]
    points = [Point("vit=16 llm=16", 16, 50), *small]
    least, most = front_plot(points, "score", "title").layout.xaxis.range
    assert 3 < least < 3.2
    assert 3.4 < most < 4


def test_rules_of_thumb_that_differ_in_a_width_share_a_mark():
    names = ("vision at 16, language model at 4", "vision at 16, language model at 2")
    rules = {**uniform_rules(POINTS), **dict.fromkeys(names, POINTS[2])}
    assert list(rules) == ["uniform 8", "uniform 4", "uniform 3", *names]
    figure = front_figure(POINTS, "score", "title", Highlights(rules=rules))
    assert [label for label in labels(figure) if label.startswith("rule")] == [
        "rule of thumb: uniform 3, 4, 8",
        "rule of thumb: vision at 16, language model at 2, 4",
    ]


def test_no_rule_of_thumb_is_left_out_if_there_are_more_than_marks():
    highlights = Highlights(rules={f"recipe {name}": POINTS[2] for name in "abcdefghi"})
    expected = [f"rule of thumb: recipe {name}" for name in "abcdefghi"]
    figure = front_figure(POINTS, "score", "title", highlights)
    plot = front_plot(POINTS, "score", "title", highlights)
    assert [label for label in labels(figure) if label.startswith("rule")] == expected
    assert [trace.name for trace in plot.data if trace.name.startswith("rule")] == expected


def test_a_long_name_of_a_rule_of_thumb_is_broken_in_the_legend():
    name = "first and last third of the blocks at 8, the rest at 2, where supported"
    figure = front_figure(POINTS, "score", "title", Highlights(rules={name: POINTS[2]}))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    (label,) = (text for text in texts if text.startswith("rule"))
    assert max(map(len, label.split("\n"))) <= LEGEND
    assert " ".join(label.split()) == f"rule of thumb: {name}"


def test_the_page_of_the_front_has_sizes_an_interval_and_a_link_per_trial():
    page = front_page(
        POINTS, "score", "a < b", parameters=GIB // 128, link=lambda p: f"/runs/{p.allocation}"
    )
    assert "<title>a &lt; b</title>" in page
    row = next(line for line in page.splitlines() if line.startswith("<tr") and "llm=4<" in line)
    for text in ('href="/runs/vit=4 llm=4"', "73 to 83", "5.100", "4.200", "40.8"):
        assert text in row
    assert row.startswith('<tr class="front">')
