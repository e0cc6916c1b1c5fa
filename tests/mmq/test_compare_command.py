"""`mmq compare`: the answers of two logged trials side by side."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image
from trial_records import eval_spec, record_of

import mmq
from mmq.allocation.allocation import BitAllocation
from mmq.cli import main
from mmq.contracts import FileImage
from mmq.contracts import Prediction as Answer
from mmq.errors import InputError
from mmq.record import TrialDetails, TrialResult, TrialSpec
from mmq.studies import answers_run
from mmq.tracking import single_run


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    return FileImage(path)


def logged(picture, answers, allocation="vit=16 llm=16", **spec):
    """The run of a trial with these answers, by sample id, with 1 for "yes"."""
    logged_spec = eval_spec(evaluator="vqa", task="vqa", data="nowhere", limit="0", **spec)
    trial = TrialSpec(logged_spec, BitAllocation.parse(allocation))
    predictions = tuple(
        Answer(key, (picture,), "?", text, "yes", float(text == "yes"))
        for key, text in answers.items()
    )
    with single_run("mmq", trial) as run:
        run.finish(TrialResult(record_of(allocation, spec=trial), TrialDetails((), predictions)))
    return run.run_id


def test_flips_come_first_and_the_largest_loss_before_all(picture, store_uri):
    one = logged(picture, {"a": "yes", "b": "no", "c": "yes", "d": "Yes "})
    other = logged(picture, {"a": "yes", "b": "maybe", "c": "no", "d": "yes"}, "vit=2 llm=2")
    result = mmq.compare_answers(one, other)
    assert [pair.sample_id for pair in result.pairs if pair.flipped] == ["c", "b"]
    assert result.flips.value == 50
    assert "2 of 4 answers differ" in result.headline
    assert "1 score less in vit=2 llm=2" in result.headline


def test_unequal_samples_are_counted_and_others_are_refused(picture, store_uri):
    one = logged(picture, {"a": "yes", "b": "no"})
    other = logged(picture, {"b": "yes", "c": "no", "d": "no"})
    result = mmq.compare_answers(one, other)
    assert (result.only_first, result.only_second) == (1, 2)
    assert "2 samples" in "\n".join(result.notes)
    apart = logged(picture, {"x": "yes"})
    with pytest.raises(InputError, match="no sample in common"):
        mmq.compare_answers(one, apart)


def test_the_command_prints_a_row_per_sample_and_logs_the_table(picture, store_uri, capsys):
    one = logged(picture, {"a": "yes", "b": "no"})
    other = logged(picture, {"a": "no", "b": "no"}, "vit=2 llm=2")
    main(["compare", one, other, "--rows", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 of 2 answers differ")
    assert sum(line.endswith("flip") for line in lines[1:]) == 2  # the head and one row
    client = MlflowClient()
    experiment = client.get_experiment_by_name("mmq").experiment_id
    (run,) = client.search_runs([experiment], "tags.`mmq.kind` = 'answers'")
    assert run.data.metrics["flips"] == 50
    path = Path(client.download_artifacts(run.info.run_id, "answers.json"))
    table = json.loads(path.read_text())
    assert [row[table["columns"].index("sample")] for row in table["data"]] == ["a"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a large purple diamond, a medium green star", "a large purple diamond, a medium dot"),
        ("猫" * 50, "猫" * 49 + "狗"), ("a " * 30, "a " * 31 + "b"), ("red", "blue"),
    ],
)  # fmt: skip
def test_the_first_difference_of_long_answers_is_visible(first, second):
    pair = answers_run.AnswerPair("7", "Q?", "x", first, second, 1, 0, "a.png", True)
    shown = answers_run._row(pair)[3:5]
    assert shown[0] != shown[1]
    assert all(len(text) <= answers_run.WIDEST for text in shown)
