"""What the figures of studies show."""

import itertools
import math

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.fronts import Point
from mmq.analysis.tradeoffs import Selection, fronts_figure, pairs_figure, sweep_figure
from mmq.studies.designs import ablation, sweep

PARTS = ["vit", "qformer", "llm"]


def points(allocations):
    result = []
    for allocation in allocations:
        widths = list(allocation.widths(PARTS).values())
        bpw = sum(widths) / len(widths)
        result.append(Point(str(allocation), bpw, 100 * min(1, bpw / 10), 1, 99))
    return result


def test_a_selection_is_read_back_from_its_allocation():
    for allocation in sweep(PARTS, [4]):
        selection = Selection.of(str(allocation), PARTS)
        chosen = itertools.product(selection.components, selection.groups, selection.types)
        widths = allocation.widths(PARTS)
        assert set(chosen) == {part for part, bits in widths.items() if bits == 4}
        assert selection.bits == 4
    assert Selection.of("vit=16 qformer=16 llm=16", PARTS) is None
    assert Selection.of("vit=4 qformer=8 llm=16", PARTS) is None
    assert Selection.of("vit.front=4 vit.middle=16 vit.end=16 qformer=4 llm=16", PARTS) is None


def test_the_sweeps_figure_has_a_line_for_every_subset():
    everything = points(sweep(PARTS, [2, 4, 6, 8]))
    figure = sweep_figure(everything, PARTS, "score", "title")
    upper, lower = figure.axes[:3], figure.axes[3:]
    for row in (upper, lower):  # the plateau, and all scores
        labels = [[line.get_label() for line in panel.lines] for panel in row]
        assert [len(each) for each in labels] == [7, 7, 3]
        assert all(each[-1] == "all" for each in labels)
        assert all(len(line.get_xdata()) == 4 for panel in row for line in panel.lines)
    assert upper[0].get_ylim()[0] > lower[0].get_ylim()[1] / 2
    assert figure.get_supylabel() == "score"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [f"all {len(everything)} allocations"]


def test_legends_are_inside_the_figure_and_under_the_panels():
    everything = points([*sweep(PARTS, [2, 4, 8]), BitAllocation.uniform(PARTS, 16)])
    figure = sweep_figure(everything, PARTS, "score", "title")
    figure.draw_without_rendering()
    boxes = [p.get_legend().get_window_extent() for p in figure.axes if p.get_legend()]
    boxes.append(figure.legends[0].get_window_extent())
    lowest = min(panel.get_window_extent().y0 for panel in figure.axes)
    assert len(boxes) == 4
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 < lowest


def test_heat_maps_show_pairs_and_singles():
    figure = pairs_figure(points(ablation(PARTS, [2, 4])), PARTS, "score", "title")
    panels = figure.axes[:3]
    assert [(p.get_xlabel(), p.get_ylabel()) for p in panels] == [
        (f"bits of {one} (log scale)", f"bits of {other} (log scale)")
        for one, other in itertools.combinations(PARTS, 2)
    ]
    for panel in panels:
        cells = panel.collections[0].get_array()
        assert cells.shape == (3, 3)  # 2, 4, 16
        assert math.isnan(cells.filled(math.nan)[2][2])  # the unquantized model was not given
        assert (cells.filled(math.nan) == cells.filled(math.nan)).sum() == 8
        assert len(panel.texts) == 8
        two, four, sixteen = panel.get_xticks()
        assert sixteen - four == 2 * (four - two)  # 2 doublings, and 1


def test_heat_maps_of_many_components_have_rows():
    parts = ["vit", "bridge", "llm", "merger"]
    allocations = [BitAllocation.of(dict.fromkeys(parts, bits)) for bits in (4, 16)]
    result = [Point(str(a), 8, 90 + k) for k, a in enumerate(allocations)]
    figure = pairs_figure(result, parts, "score", "title")
    assert len(figure.axes) == 6 + 1  # and the colour bar
    assert len({round(panel.get_position().y0, 2) for panel in figure.axes[:6]}) == 2


def test_several_fronts_are_drawn_with_how_many_trials_they_come_from():
    some = points(ablation(PARTS, [2, 4]))
    figure = fronts_figure({"gptq": some, "awq": some[:3]}, "score", "title")
    panel = figure.axes[-1]
    assert [c.get_label() for c in panel.containers] == [f"gptq ({len(some)})", "awq (3)"]
