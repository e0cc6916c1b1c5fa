"""Tables compared on the configurations that they share."""

import pytest
from known_tables import QUICK, additive, grid, table

from mmq.analysis.comparison import compare, design_differences, match
from mmq.analysis.findings import comparison_rows
from mmq.errors import InputError


def collapsing(vit, qformer, llm):
    """As additive with vit and llm alike, but an llm of 2 bits says nothing at all."""
    return 0.0 if llm == 2 else 100 - 60 / llm - 60 / vit


def test_a_width_that_one_method_lacks_is_reported_with_its_effect():
    every = grid(collapsing)
    tables = [table(every[every.llm > 2], name="gptq"), table(every, name="awq")]
    comparison = compare(tables, QUICK)
    assert comparison.differences[0] == "gptq has no llm=2"
    assert comparison.shared == 100
    gptq, awq = comparison.raw
    assert awq.consensus["llm"].value - gptq.consensus["llm"].value > 30
    for part, share in comparison.matched[1].consensus.items():
        assert share.value == pytest.approx(gptq.consensus[part].value, abs=1e-9)
    assert "most of the difference comes from the designs" in comparison.warning
    assert "awq: llm > vit > qformer becomes" in comparison.warning
    head, rows = comparison_rows(comparison)
    assert len(rows) == 6
    assert rows[3][:1] + rows[3][3:4] + rows[3][5:] == ["awq", "125", "100"]


def test_equal_designs_need_no_warning():
    tables = [table(grid(additive), name="a"), table(grid(collapsing), name="b")]
    comparison = compare(tables, QUICK)
    assert comparison.warning == ""
    assert comparison.matched is comparison.raw
    assert comparison.shared == 125


def test_models_with_other_parts_are_matched_where_those_are_unquantized():
    two = grid(lambda v, m: additive(v, 16, m), ("vit", "llm"))
    tables = [table(grid(additive), name="blip2"), table(two, ("vit", "llm"), name="llava")]
    assert design_differences(tables)[0] == "llava has no qformer"
    matched = match(tables)
    assert [each.parts for each in matched] == [("vit", "llm")] * 2
    assert [each.n for each in matched] == [25, 25]


def test_disjoint_designs_are_reported_and_not_ranked():
    every = grid(additive)
    tables = [table(every[every.llm <= 4], name="a"), table(every[every.llm > 4], name="b")]
    comparison = compare(tables, QUICK)
    assert comparison.shared == 0
    assert comparison.matched[0].reason
    assert "a cannot be ranked on the shared configurations" in comparison.warning


def test_a_comparison_needs_two_tables_of_different_names_and_a_common_part():
    one = table(grid(additive), name="a")
    with pytest.raises(InputError, match="two tables"):
        compare([one])
    with pytest.raises(InputError, match="names must differ"):
        compare([one, one])
    other = table(grid(lambda x: x, ("x",)), ("x",), name="b")
    with pytest.raises(InputError, match="no part in common"):
        compare([one, other], QUICK)
