import random

import pytest
from mmq_search.space import Space

from mmq.allocation.allocation import BitAllocation
from mmq.errors import InputError

SPACE = Space(("vit", "llm"), (2, 4, 8, 16))


def test_the_space_has_every_allocation_once():
    everything = [str(a) for a in SPACE]
    assert len(everything) == len(set(everything)) == len(SPACE) == 16


def test_the_rules_of_thumb_start_with_the_unquantized_model():
    assert [(name, str(allocation)) for name, allocation in SPACE.rules()] == [
        ("uniform 16", "vit=16 llm=16"),
        ("uniform 8", "vit=8 llm=8"),
        ("uniform 4", "vit=4 llm=4"),
        ("uniform 2", "vit=2 llm=2"),
        ("vision at 16, language model at 4", "vit=16 llm=4"),
        ("vision at 16, language model at 2", "vit=16 llm=2"),
    ]


def test_params_are_indices_of_widths():
    assert SPACE.params(BitAllocation.parse("vit=2,llm=16")) == {"vit": 0, "llm": 3}


def test_the_last_new_point_is_found_and_then_none():
    seen = {str(a) for a in SPACE} - {"vit=4 llm=8"}
    assert str(SPACE.random_new(seen, random.Random(0))) == "vit=4 llm=8"
    assert SPACE.random_new(seen | {"vit=4 llm=8"}, random.Random(0)) is None


@pytest.mark.parametrize(("granularity", "count"), [("group", 6), ("type", 4), ("fine", 12)])
def test_finer_spaces_give_every_part_a_width(granularity, count):
    space = Space(("vit", "llm"), (2, 8, 16), granularity)
    assert len(space) == 3**count
    params = {name: k % 3 for k, name in enumerate(space.parts)}
    allocation = space.allocation(params)
    assert space.params(allocation) == params
    assert space.rules()[0][1] == space.allocation(dict.fromkeys(space.parts, 2))
    fresh = space.random_new({str(allocation)}, random.Random(0))
    assert fresh is not None
    assert fresh != allocation


def test_tables_are_searched_at_the_widths_that_they_can_have():
    space = Space.of(("embed", "llm"), (3, 4, 16))
    assert space.widths("embed") == (4, 16)
    assert space.widths("llm") == (3, 4, 16)
    assert {a.as_dict()["embed"] for _, a in space.rules()} == {4, 16}
    with pytest.raises(InputError, match="none of 2, 3 for embed"):
        Space.of(("embed", "llm"), (2, 3))
