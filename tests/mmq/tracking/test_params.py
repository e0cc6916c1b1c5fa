"""What the params of a study's parent run say about its eval specs."""

from dataclasses import replace

from trial_records import eval_spec

from mmq.system import worker
from mmq.tracking.params import another_study, shared_params

SPEC = eval_spec()


def test_a_name_of_another_study_is_refused_with_what_differs(monkeypatch):
    recorded = {name: str(value) for name, value in shared_params([SPEC]).items()}
    newer = replace(SPEC, quantizer_version=SPEC.quantizer_version + 1,
                    quantizer_origin="of another source")  # fmt: skip
    versions = f"{SPEC.quantizer_version}' there and '{newer.quantizer_version}' here"
    text = another_study("mine", recorded, [newer])
    assert text.startswith("study: 'mine' exists already, with another eval spec: ")
    assert f"spec: quantizer.version is '{versions}. Choose another --study" in text
    assert "exists already, of another kind. Choose" in another_study("m", recorded, [SPEC])
    monkeypatch.setenv(worker.NUMBER, "1")
    monkeypatch.setenv(worker.PLACE, "node7")
    text = another_study("mine", recorded, [newer])
    assert "launched the worker on node7 plans 'mine'" in text
    assert "Install the same versions" in text
