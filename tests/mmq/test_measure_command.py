"""`mmq measure`: the cost of an exported model beside the unquantized one, logged."""

import json
import shutil

import pytest
from logged_runs import refused
from served import ALIAS

import mmq
from mmq.cli import main
from mmq.export.facts import FACTS, write_facts


def test_an_answer_is_measured_beside_16_bits_and_logged_with_its_trial(answer, capsys):
    main(["measure", "--run", ALIAS, "--repeats", "2", "--tokens", "4"])
    text = capsys.readouterr().out
    assert "llama.cpp xllamacpp" in text
    assert "tokens per second" in text
    (run,) = answer.runs("measure")
    values, params = run.data.metrics, run.data.params
    assert values["measure/file_bytes"] < values["measure/unquantized/file_bytes"]
    assert values["measure/ratio/file_bytes"] == pytest.approx(
        values["measure/file_bytes"] / values["measure/unquantized/file_bytes"]
    )
    low, high = (values[f"measure/ratio/answer_seconds_{end}"] for end in ("low", "high"))
    assert low <= values["measure/ratio/answer_seconds"] <= high
    assert values["measure/peak_bytes"] > 2**20
    assert params["measure.engine"] == "llama.cpp"
    assert params["measure.processor"]
    trial = answer.client.get_run(run.data.tags["mmq.exported_from"])
    assert trial.data.metrics["measured/gguf/answer_seconds"] > 0
    (study,) = answer.runs("study")
    for run_id in (study.info.run_id, run.info.run_id):
        names = [file.path for file in answer.client.list_artifacts(run_id)]
        assert "measured-gguf.png" in names


def test_a_folder_without_its_source_is_measured_without_ratios(answer, tmp_path):
    folder = tmp_path / "theirs"
    shutil.copytree(answer.folder, folder)
    facts = json.loads((folder / FACTS).read_text())
    facts |= {"model": "somebody/elses", "trial": "of another store"}
    (folder / FACTS).write_text(json.dumps(facts))
    result = mmq.measure(folder, repeats=1, tokens=2)
    assert result.unquantized is None
    assert result.ratios == {}
    assert "no ratios: the unquantized model is not available" in result.note
    assert result.model.answers[0].tokens == 2


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ([], "give either an exported folder or --run"),
        (["nowhere"], "nowhere is not a folder"),
        (["."], "has no readable mmq_export.json"),
        (["mine.unverified"], "failed its proof"),
        (["mine.partial"], "is not complete"),
        (["mine", "--repeats", "0"], "repeats: 0 is not at least 1"),
        (["mine", "--tokens", "1"], "tokens: 1 is not at least 2"),
        (["mine", "--picture", "none.png"], "picture: none.png is not a file"),
        (["mine", "--path", "other"], "give one"),
        (["--run", "nobody"], "'nobody' is not in the MLflow store"),
        (["mine", "--bits", "4"], "Unknown option 'bits'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_opened(store_uri, capsys, command, reason):
    refused(["measure", *command])
    assert reason in capsys.readouterr().err


def test_a_model_that_generates_no_text_is_refused_before_it_is_opened(tmp_path):
    write_facts(tmp_path, {"target": "torch", "task": "retrieval", "evaluator_options": {}})
    with pytest.raises(mmq.InputError, match="task: retrieval ranks pictures and texts"):
        mmq.measure(tmp_path)
