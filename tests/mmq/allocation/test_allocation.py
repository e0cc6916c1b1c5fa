import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmq.allocation.allocation import ALLOWED_BITS, BitAllocation, parse_bits
from mmq.allocation.parts import GROUPS, block_group, names
from mmq.errors import InputError


def test_text_and_allocation_round_trip():
    text = "vit=4 qformer=8 llm=3"
    assert str(BitAllocation.parse(text)) == text
    assert BitAllocation.parse("vit=4,qformer=8,llm=3") == BitAllocation.parse(text)


def test_unnamed_components_stay_unquantized_in_the_models_order():
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


# --- finer parts ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("vit=8,vit.front=4", "vit.front=4 vit.middle=8 vit.end=8 llm=16"),
        ("vit.attn=4,vit.ff=3,llm=2", "vit.attn=4 vit.ff=3 llm=2"),
        ("vit.ff=3", "vit.attn=16 vit.ff=3 llm=16"),
        ("vit.front.attn=4", "vit.front.attn=4 vit.front.ff=16 vit.middle=16 vit.end=16 llm=16"),
        ("vit.front=4,vit.attn=8,vit.front.attn=2",
         "vit.front.attn=2 vit.front.ff=4 vit.middle.attn=8 vit.middle.ff=16 vit.end.attn=8 "
         "vit.end.ff=16 llm=16"),
        ("vit.front=4,vit.middle=4,vit.end=4", "vit=4 llm=16"),
        ("vit.attn=4,vit.ff=4", "vit=4 llm=16"),
        ("vit.front=4,vit.attn=4", "vit.front=4 vit.middle.attn=4 vit.middle.ff=16 "
         "vit.end.attn=4 vit.end.ff=16 llm=16"),
    ],
)  # fmt: skip
def test_an_allocation_is_written_in_one_way_and_reads_back(text, written):
    allocation = BitAllocation.parse(text).over(["vit", "llm"])
    assert str(allocation) == written
    assert BitAllocation.parse(written).over(["vit", "llm"]) == allocation
    assert allocation.over(["vit", "llm"]) == allocation


@given(st.lists(st.sampled_from(ALLOWED_BITS), min_size=12, max_size=12))
def test_every_fine_allocation_keeps_its_widths(bits):
    parts = list(names(["vit", "llm"], "fine"))
    given_bits = dict(zip(parts, bits, strict=True))
    allocation = BitAllocation.of(given_bits).over(["vit", "llm"])
    assert {
        ".".join(part): b for part, b in allocation.widths(["vit", "llm"]).items()
    } == given_bits
    assert {part: allocation.within(part) for part in parts} == given_bits
    assert len(allocation.bits) <= 12


@pytest.mark.parametrize("text", ["vit.x=4", "vit.attn.front=4", "vit.front.middle=4", "vit.=4"])
def test_unknown_parts_are_refused(text):
    with pytest.raises(InputError, match=r"is not a valid part; write vit, vit\.front"):
        BitAllocation.parse(text).over(["vit"])


def test_equally_exact_names_that_differ_are_refused():
    with pytest.raises(InputError, match=r"vit\.front and vit\.attn differ on vit\.front\.attn"):
        BitAllocation.parse("vit.front=4,vit.attn=8").over(["vit"])


def test_a_mixed_part_has_no_single_width():
    allocation = BitAllocation.parse("vit.front=4,llm=3").over(["vit", "llm"])
    result = [allocation.within(part) for part in ("vit", "vit.front", "vit.attn", "llm.ff")]
    assert result == ["mixed", 4, "mixed", 3]


@pytest.mark.parametrize(("blocks", "sizes"), [(39, (13, 13, 13)), (12, (4, 4, 4)), (1, (1, 0, 0)),
                                               (32, (11, 11, 10)), (2, (1, 1, 0))])  # fmt: skip
def test_block_groups_are_contiguous_thirds(blocks, sizes):
    result = [block_group(block, blocks) for block in range(blocks)]
    assert result == [g for g, size in zip(GROUPS, sizes, strict=True) for _ in range(size)]


def test_tables_have_no_odd_or_tiny_widths():
    assert BitAllocation.parse("embed=6,llm=3,head=8")["embed"] == 6
    with pytest.raises(InputError, match=r"embed=3 is not possible: .* 4, 6, 8 or 16 bits"):
        BitAllocation.parse("llm=3,embed=3")
