"""Records on disk: read as they were written, or not at all."""

import json

import pytest

from mmq.allocation.allocation import BitAllocation
from mmq.studies.records import Records

ALLOCATION = BitAllocation.parse("vit=4,llm=3")
FACTS = {"allocation": {"vit": 4, "llm": 3}, "primary": "a", "metrics": {"a": {"value": 95.0}}}


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "question")


@pytest.mark.parametrize("pruned", [False, True])
def test_a_record_with_another_digit_is_none(records, caplog, pruned):
    facts = FACTS | ({"pruned": {}} if pruned else {})
    records.put(facts)
    path = records.path_of_pruned(ALLOCATION) if pruned else records.path(ALLOCATION)
    assert records.get_any(ALLOCATION) == facts
    path.write_text(path.read_text().replace("95", "25"))
    assert records.get_any(ALLOCATION) is None
    assert f"{path} is damaged" in caplog.text


def test_a_record_of_an_earlier_version_is_evaluated_again(records, caplog):
    records.path(ALLOCATION).write_text(json.dumps(FACTS))
    assert records.get(ALLOCATION) is None
    assert "no checksum" in caplog.text


def test_a_record_of_another_question_or_allocation_is_not_taken(records, tmp_path):
    other = Records(tmp_path / "other")
    other.put(FACTS)
    records.path(ALLOCATION).write_bytes(other.path(ALLOCATION).read_bytes())
    assert records.get(ALLOCATION) is None
    records.put(FACTS)
    narrow = BitAllocation.parse("vit=2,llm=3")
    records.path(narrow).write_bytes(records.path(ALLOCATION).read_bytes())
    assert records.get(narrow) is None


def test_a_long_allocation_has_a_name_that_a_file_system_takes(records):
    many = BitAllocation.of({f"component{k}.front.attn": 4 for k in range(60)})
    records.put(FACTS | {"allocation": many.as_dict()})
    assert records.get(many) is not None
