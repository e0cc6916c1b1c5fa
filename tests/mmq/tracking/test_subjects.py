"""Figures of logged trials name what was evaluated."""

from mmq.tracking.subjects import score_name, subject

PARAMS = {
    "model.name": "embedded-llava", "evaluator.name": "vqa", "data.name": "/data/scenes",
    "data.samples": "60", "quantizer.name": "gptq",
}  # fmt: skip


def test_trials_are_titled_by_model_task_data_and_quantizers():
    both = [PARAMS, {**PARAMS, "quantizer.name": "awq"}]
    assert subject(both) == "embedded-llava, vqa on scenes (60 samples), gptq/awq"
    assert subject([{"quantizer.name": "gptq"}]) == "gptq"
    assert subject([{}]) == ""


def test_the_score_is_named_after_its_metric():
    one = {"score": 90.0, "vqa/accuracy": 90.0, "vqa/accuracy_low": 90.0,
           "vqa/accuracy_yes_no": 90.0, "bpw": 90.0}  # fmt: skip
    other = {"score": 80.0, "vqa/accuracy": 80.0, "vqa/accuracy_yes_no": 70.0}
    assert score_name([one, other]) == "vqa/accuracy"
    assert score_name([one]) == "vqa/accuracy"
    assert score_name([{"score": 1.0, "bpw": 1.0}]) == score_name([]) == "score"
