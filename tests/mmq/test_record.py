"""The one record: read as it was written, and the same on disk and in MLflow."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from trial_records import eval_spec, record_of

from mmq.contracts import Evaluation, LayerReport, Metric, Prediction, QuantReport
from mmq.models.size import Size
from mmq.record import OtherSchema, Pruned, TrialDetails, TrialRecord, TrialResult, TrialSpec
from mmq.studies import session
from mmq.studies.records import Records
from mmq.studies.session import Session
from mmq.system.sealed import Damaged
from mmq.tracking import fetch_record, study_run
from mmq.tracking.metrics import trial_metrics

RECORD = record_of()
RECORDS = {
    "finished": RECORD,
    "pruned": replace(RECORD, pruned=Pruned(2, 8, "vit=3 llm=3", False, 4.0, 1.5)),
    "with an undefined metric": replace(RECORD, undefined={"meteor": "Java is missing"}),
    "without intervals or samples": replace(
        RECORD, metrics={RECORD.primary: Metric(95.0, 2)}, per_sample={}, size=Size(10, 4.0)
    ),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_record_survives_json(record):
    assert TrialRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize("schema", [None, 1, 99, "2"])
def test_a_record_of_another_schema_is_refused(schema):
    with pytest.raises(OtherSchema, match=f"with schema {schema}; this version reads"):
        TrialRecord.from_json(RECORD.to_json() | {"schema": schema})


@pytest.mark.parametrize("name", sorted(RECORD.to_json().keys() - {"schema"}))
def test_a_record_that_lacks_anything_is_damaged(name):
    data = RECORD.to_json()
    del data[name]
    with pytest.raises(Damaged, match="incomplete or invalid"):
        TrialRecord.from_json(data)


def test_a_result_keeps_the_evaluation_in_the_record_and_the_rest_in_the_details():
    metric = Metric(50.0, 2, 10.0, 90.0)
    predictions = [Prediction(str(k), "x.jpg", "?", "yes", "no", float(k)) for k in range(2)]
    evaluation = Evaluation(
        "acc", {"acc": metric}, {"acc": [0, 1]}, predictions, {"meteor": "no Java"}
    )
    layer = LayerReport("a", "vit", 0, "attn", (4, 4), 4, relative_error=0.5)
    result = TrialResult.of(
        TrialSpec(eval_spec(), RECORD.allocation), evaluation, QuantReport((layer,)),
        Size(10, 4.0, 4.5), {"quantize": 1.0},
    )  # fmt: skip
    assert result.record.score == metric
    assert result.record.sample_scores == (0.0, 1.0)
    assert result.record.layer_errors == {"relative_error": 0.5, "output_error": None}
    assert result.record.undefined == {"meteor": "no Java"}
    assert result.details == TrialDetails((layer,), tuple(predictions))


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_mlflow_and_the_disk_agree(record, store_uri, monkeypatch, tmp_path):
    result = TrialResult(record, TrialDetails((), ()))
    monkeypatch.setattr(session, "run_trial", lambda *arguments: result)
    prepared = SimpleNamespace(
        eval_spec=record.spec.eval_spec,
        task=None,
        skeleton=SimpleNamespace(components=["vit", "llm"]),
    )
    records = Records(tmp_path / "records")
    with study_run("e", "s", [record.spec.eval_spec], None) as run:
        saved = Session(prepared, lambda: None, None).record(run, record.allocation, records.put)
    assert records.get_any(record.allocation) == saved
    assert fetch_record(saved.run_id) == saved == record.in_run(saved.run_id)
    logged = MlflowClient().get_run(saved.run_id)
    assert logged.info.status == ("FINISHED" if record.pruned is None else "KILLED")
    assert logged.data.tags["mmq.eval_spec"] == record.spec.eval_spec.key
    assert logged.data.tags["mmq.allocation"] == str(record.allocation)
    assert logged.data.params["bits.vit"] == "4"
    assert logged.data.params["quantizer.version"] == "1"
    metrics = dict(logged.data.metrics)
    assert metrics.pop("seconds/log") > 0
    if record.pruned is not None:
        assert metrics.pop("partial/samples") == record.pruned.samples
        assert "score" not in metrics
    expected = trial_metrics(saved)
    assert metrics.keys() == expected.keys()
    assert all(math.isclose(metrics[name], value) for name, value in expected.items())
