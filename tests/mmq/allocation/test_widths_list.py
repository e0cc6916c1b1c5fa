import pytest

from mmq.allocation.widths_list import WidthsList


@pytest.mark.parametrize(
    ("allocations", "granularity"),
    [
        (["vit=4 llm=3"], "component"),
        (["vit=4 llm=3", "vit.front=4 vit.middle=3 vit.end=4 llm=2"], "group"),
        (["vit.attn=4 vit.ff=3 llm=2"], "type"),
        (["vit.attn=4 vit.ff=3 llm=2", "vit=2 llm.front=4 llm.middle=3 llm.end=4"], "fine"),
    ],
)
def test_the_coarsest_granularity_with_all_parts_is_used(allocations, granularity):
    assert WidthsList.of(allocations).granularity == granularity


def test_widths_are_listed_in_the_order_of_the_parts_and_once_if_they_are_equal():
    brief = WidthsList("group")
    assert brief.order == "front/middle/end"
    columns = brief.columns("embed=8 vit.front=4 vit.middle=16 vit.end=2 llm=3")
    assert columns == {"embed": "8", "vit": "4/16/2", "llm": "3"}


def test_allocations_of_components_stay_as_they_are():
    assert WidthsList("component").text("vit=4 llm=3") == "vit=4 llm=3"
    assert not WidthsList("component").is_needed
