"""What the figures of studies show."""

import itertools
import math

from mmq.analysis.fronts import Point
from mmq.analysis.tradeoffs import Selection, fronts_figure, pairs_figure, sweep_figure
from mmq.studies.designs import ablation, sweep

PARTS = ["vit", "qformer", "llm"]


def points(allocations):
    found = []
    for allocation in allocations:
        widths = list(allocation.widths(PARTS).values())
        bpw = sum(widths) / len(widths)
        found.append(Point(str(allocation), bpw, 100 * min(1, bpw / 10), 1, 99))
    return found


def test_a_selection_is_read_back_from_its_allocation():
    for allocation in sweep(PARTS, [4]):
        found = Selection.of(str(allocation), PARTS)
        chosen = itertools.product(found.components, found.groups, found.types)
        widths = allocation.widths(PARTS)
        assert set(chosen) == {part for part, bits in widths.items() if bits == 4}
        assert found.bits == 4
    assert Selection.of("vit=16 qformer=16 llm=16", PARTS) is None
    assert Selection.of("vit=4 qformer=8 llm=16", PARTS) is None
    assert Selection.of("vit.front=4 vit.middle=16 vit.end=16 qformer=4 llm=16", PARTS) is None


def test_the_sweeps_figure_has_a_line_for_every_subset():
    everything = points(sweep(PARTS, [2, 4, 6, 8]))
    figure = sweep_figure(everything, PARTS, "score", "title")
    labels = [[line.get_label() for line in panel.lines] for panel in figure.axes]
    assert [len(each) for each in labels] == [7, 7, 3]
    assert all(each[-1] == "all" for each in labels)
    assert all(len(line.get_xdata()) == 4 for panel in figure.axes for line in panel.lines)
    assert f"{len(everything)} allocations" in figure.axes[0].get_ylabel()


def test_heat_maps_hold_pairs_and_singles():
    figure = pairs_figure(points(ablation(PARTS, [2, 4])), PARTS, "score", "title")
    panels = [panel for panel in figure.axes if panel.images]
    assert [(p.get_xlabel(), p.get_ylabel()) for p in panels] == [
        ("vit bits", "qformer bits"), ("vit bits", "llm bits"), ("qformer bits", "llm bits")
    ]  # fmt: skip
    for panel in panels:
        cells = panel.images[0].get_array()
        assert cells.shape == (3, 3)  # 2, 4, 16
        assert math.isnan(cells.filled(math.nan)[2][2])  # the unquantized model was not given
        assert (cells.filled(math.nan) == cells.filled(math.nan)).sum() == 8
        assert len(panel.texts) == 8


def test_several_fronts_are_drawn_with_how_many_trials_they_come_from():
    some = points(ablation(PARTS, [2, 4]))
    figure = fronts_figure({"gptq": some, "awq": some[:3]}, "score", "title")
    (panel,) = figure.axes
    assert [c.get_label() for c in panel.containers] == [f"gptq ({len(some)})", "awq (3)"]
