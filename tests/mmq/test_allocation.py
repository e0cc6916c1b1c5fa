import pytest

from mmq.allocation import ALLOWED_BITS, BitAllocation, parse_bits
from mmq.errors import InputError


def test_text_and_allocation_are_each_others_inverse():
    text = "vit=4 qformer=8 llm=3"
    assert str(BitAllocation.parse(text)) == text
    assert BitAllocation.parse("vit=4,qformer=8,llm=3") == BitAllocation.parse(text)


def test_components_that_are_not_named_stay_untouched_in_the_models_order():
    allocation = BitAllocation.parse("llm=3").over(["vit", "qformer", "llm"])
    assert str(allocation) == "vit=16 qformer=16 llm=3"


def test_unknown_component_lists_near_names():
    with pytest.raises(InputError, match="Did you mean 'qformer'"):
        BitAllocation.parse("qfromer=3").over(["vit", "qformer"])


@pytest.mark.parametrize("text", ["vit", "vit=", "=4", "vit=four", "", "vit=4,vit=3"])
def test_malformed_allocation_is_refused(text):
    with pytest.raises(InputError):
        BitAllocation.parse(text)


@pytest.mark.parametrize("bits", [0, 1, 9, 15, 17, 32])
def test_unknown_width_lists_the_allowed_ones(bits):
    with pytest.raises(InputError, match=r"is not one of \[2, 3, 4, 5, 6, 7, 8, 16\]"):
        BitAllocation.parse(f"vit={bits}")


def test_widths_are_sorted_and_unique():
    assert parse_bits("16,4,2,4") == (2, 4, 16)
    assert parse_bits(",".join(map(str, ALLOWED_BITS))) == ALLOWED_BITS


@pytest.mark.parametrize("text", ["", "2;3", "two", "2,,3", "2.5"])
def test_malformed_widths_are_refused(text):
    with pytest.raises(InputError, match="write them like"):
        parse_bits(text)
