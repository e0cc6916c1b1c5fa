"""Records on disk are read as they were written, or not at all."""

import json
from dataclasses import replace

import pytest
from trial_records import record_of

from mmq.allocation.allocation import BitAllocation
from mmq.record import Pruned
from mmq.studies.records import Records
from mmq.system import sealed

RECORD = record_of("vit=4 llm=3", 95.0, run_id="r")
ALLOCATION = RECORD.allocation
PRUNED = replace(RECORD, pruned=Pruned(2, 8, "vit=3 llm=3", True, 4.0, 1.5))


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "spec")


@pytest.mark.parametrize("record", [RECORD, PRUNED], ids=["finished", "pruned"])
def test_a_record_is_read_as_it_was_written_and_not_with_another_digit(records, caplog, record):
    records.put(record)
    path = records.path_of_pruned(ALLOCATION) if record.pruned else records.path(ALLOCATION)
    assert records.get_any(ALLOCATION) == record
    assert records.get(ALLOCATION) == (None if record.pruned else record)
    path.write_text(path.read_text().replace("95", "25"))
    assert records.get_any(ALLOCATION) is None
    assert f"{path} is damaged" in caplog.text


def test_an_unsealed_record_is_evaluated_again(records, caplog):
    records.path(ALLOCATION).write_text(json.dumps(RECORD.to_json()))
    assert records.get(ALLOCATION) is None
    assert "no checksum" in caplog.text


@pytest.mark.parametrize(
    ("schema", "age"), [(None, "an earlier version"), (1, "an earlier"), (99, "a newer version")]
)
def test_a_record_of_another_schema_is_reported_and_not_used(records, caplog, schema, age):
    sealed.write_json(records.path(ALLOCATION), RECORD.to_json() | {"schema": schema})
    assert records.get(ALLOCATION) is None
    assert f"{age}" in caplog.text
    assert f"with schema {schema}" in caplog.text


def test_a_record_that_lacks_a_field_is_reported_and_not_used(records, caplog):
    data = RECORD.to_json()
    del data["size"]
    sealed.write_json(records.path(ALLOCATION), data)
    assert records.get(ALLOCATION) is None
    assert "it is incomplete or invalid (KeyError('size'))" in caplog.text


def test_a_record_of_another_spec_or_allocation_is_not_used(records, tmp_path):
    other = Records(tmp_path / "other")
    other.put(RECORD)
    records.path(ALLOCATION).write_bytes(other.path(ALLOCATION).read_bytes())
    assert records.get(ALLOCATION) is None
    records.put(RECORD)
    narrow = BitAllocation.parse("vit=2,llm=3")
    records.path(narrow).write_bytes(records.path(ALLOCATION).read_bytes())
    assert records.get(narrow) is None


def test_a_long_allocation_has_a_valid_file_name(records):
    many = BitAllocation.of({f"component{k}.front.attn": 4 for k in range(60)})
    records.put(record_of(many))
    assert records.get(many) is not None
