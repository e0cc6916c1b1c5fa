"""The registered version of a selection is the exported model, which MLflow loads and serves."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from exporting import session_for
from mlflow.exceptions import MlflowException
from repeatable import free_port
from served import ALIAS, QUESTION, picture

from mmq.cli import main
from mmq.errors import InputError
from mmq.export.facts import FACTS, read_facts
from mmq.export.pictures import sample_picture
from mmq.tracking import exported_models, serving
from mmq.tracking.exported_models import check_register, save_model
from mmq.tracking.mlflow_internals import SERVING
from mmq.tracking.model_registry import find_run


@pytest.fixture(scope="module")
def model(exported_answer):
    with exported_answer.in_use():
        return mlflow.pyfunc.load_model(ALIAS)


def test_the_registered_version_is_the_exported_model_and_names_the_trial(answer):
    version = answer.client.get_model_version_by_alias("mine", ALIAS.partition("@")[2])
    (export,) = answer.runs("export")
    assert version.tags["target"] == "gguf"
    assert version.tags["export_run"] == export.info.run_id
    assert version.run_id == export.data.tags["mmq.exported_from"]
    assert version.tags["score"]
    assert "Exported: embedded-llava at" in version.description
    first = answer.client.get_model_version("mine", "1")
    assert first.source.endswith("allocation.json")
    selected, _, _ = first.description.partition("\n\nThis version is an allocation")
    assert version.description.startswith(selected)
    assert "not weights" not in version.description
    assert f"mlflow models serve -m models:/{version.name}" in version.description


def test_an_unknown_alias_is_refused_with_those_that_the_model_has(answer):
    with pytest.raises(InputError, match=rf"Give a run's id, or .*{ALIAS}"):
        find_run("models:/mine@smallest")


def test_the_export_logged_what_answers_cost(answer):
    (export,) = answer.runs("export")
    assert export.data.metrics["export/tokens_per_second"] > 0
    assert export.data.metrics["export/peak_bytes"] > 2**20
    assert "## Speed\n\nllama.cpp xllamacpp" in (answer.folder / "README.md").read_text()


@pytest.mark.parametrize("form", ["base64", "lines", "data URI", "bytes", "path"])
def test_a_picture_can_be_given_as(model, tmp_path, form):
    data, text = sample_picture(32).data, picture()
    (tmp_path / "a.png").write_bytes(data)
    forms = {
        "base64": text,
        "lines": "\n".join(text[k : k + 76] for k in range(0, len(text), 76)),
        "data URI": f"data:image/png;base64,{text}",
        "bytes": data,
        "path": str(tmp_path / "a.png"),
    }
    expected = model.predict({"image": data, "text": QUESTION})
    assert expected[0]
    assert model.predict({"image": forms[form], "text": QUESTION}) == expected


def test_rows_are_answered_in_order_as_the_model_was_scored(model):
    rows = pd.DataFrame({"image": [picture()] * 2, "text": [QUESTION, "is there a circle?"]})
    color, there = model.predict(rows)
    assert there in ("yes", "no")
    assert color not in ("yes", "no")
    params = {"answer_format": "short answer", "max_new_tokens": 10}
    assert model.predict(rows, params=params) == [color, there]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": QUESTION}, r"missing inputs \['image'\]"),
        ({"image": picture()}, r"missing inputs \['text'\]"),
        ({"image": picture(), "txt": QUESTION}, r"there were extra inputs: \['txt'\]"),
        ({"image": None, "text": QUESTION}, "row 1: image is empty; give the bytes"),
        ({"image": 7, "text": QUESTION}, "row 1: image is of type int"),
        ({"image": "no picture", "text": QUESTION}, "neither a picture in base64"),
        ({"image": picture()[:-3], "text": QUESTION}, "neither a picture in base64"),
        ({"image": "aGVsbG8=", "text": QUESTION}, "row 1: image cannot be read"),
        ({"image": "http://a/b.png", "text": QUESTION}, "a URL, which is not fetched"),
        ({"image": "data:text/plain,hi", "text": QUESTION}, "not a data URI of a picture"),
    ],
)
def test_an_invalid_row_is_a_caller_error(model, row, reason):
    with pytest.raises(MlflowException, match=reason) as error:
        model.predict(row)
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"


def test_the_bad_one_of_several_rows_is_named(model):
    rows = [{"image": picture(), "text": QUESTION}, {"image": "", "text": QUESTION}]
    with pytest.raises(MlflowException, match="row 2: image is empty"):
        model.predict(rows)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"answer_format": "poem"}, "Unknown answer_format 'poem'"),
        ({"max_new_tokens": -1}, "max_new_tokens: -1 is negative"),
        ({"num_beams": 2}, "llama.cpp decodes greedily"),
    ],
)
def test_an_invalid_param_is_a_caller_error(model, params, reason):
    with pytest.raises(MlflowException, match=reason):
        model.predict({"image": picture(), "text": QUESTION}, params=params)


def test_a_server_reads_no_files_but_those_in_a_folder_that_is_named(model, tmp_path, monkeypatch):
    inside = tmp_path / "pictures"
    inside.mkdir()
    for folder in (inside, tmp_path):
        (folder / "a.png").write_bytes(sample_picture(32).data)
    monkeypatch.setenv(SERVING, "true")
    with pytest.raises(MlflowException, match="nor a file in the folder MMQ_PICTURES"):
        model.predict({"image": str(inside / "a.png"), "text": QUESTION})
    monkeypatch.setenv(serving.PICTURES, str(inside))
    assert model.predict({"image": "a.png", "text": QUESTION})[0]
    with pytest.raises(MlflowException, match="nor a file in the folder MMQ_PICTURES"):
        model.predict({"image": "../a.png", "text": QUESTION})


def test_nothing_is_pickled_and_the_engines_extra_is_pinned(answer):
    folder = Path(mlflow.artifacts.download_artifacts(ALIAS))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert {"served_model.py", "artifacts/model/model.gguf", "input_example.json"} <= files
    assert not [name for name in files if name.endswith(".pkl")]
    assert (folder / "requirements.txt").read_text().startswith("mmq[gguf]==")


def post(port, body):
    """The status and the body of a response to a request."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_mlflow_serves_it(answer, model):
    port = free_port()
    program = Path(sys.executable).with_name("mlflow")
    command = [str(program) if program.exists() else "mlflow", "models", "serve", "-m", ALIAS]
    command += ["--env-manager", "local", "-p", str(port)]
    row = {"image": picture(), "text": QUESTION}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": path}  # where MLflow finds its web server
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=env, **streams) as server:
        try:
            deadline = time.monotonic() + 600
            while server.poll() is None and time.monotonic() < deadline:
                try:
                    status, response = post(port, {"inputs": row})
                    break
                except OSError:
                    time.sleep(0.1)
            assert (status, response) == (200, {"predictions": model.predict(row)})
            status, response = post(port, {"dataframe_records": [{**row, "image": "/etc/hosts"}]})
            assert status == 400
            assert "neither a picture in base64" in response["message"]
        finally:
            server.terminate()


def test_a_referenced_folder_is_opened_where_it_is_and_recognized(tmp_path, monkeypatch):
    out = tmp_path / "mine"
    session_for("embedded-llava", "llm=4").run(out, 0)
    save_model(tmp_path / "logged", out, copied=False, model_id="m-1", run_id="r")
    model = mlflow.pyfunc.load_model(str(tmp_path / "logged"))
    assert model.predict({"image": picture(), "text": "is there a circle?"})[0] in ("yes", "no")
    facts = json.loads((out / FACTS).read_text())
    (out / FACTS).write_text(json.dumps({**facts, "key": "another"}))
    with pytest.raises(MlflowException, match="contains another model than the one that was"):
        mlflow.pyfunc.load_model(str(tmp_path / "logged"))
    out.rename(tmp_path / "moved")
    with pytest.raises(MlflowException, match="is not on this machine"):
        mlflow.pyfunc.load_model(str(tmp_path / "logged"))


def test_large_folders_are_referenced_by_default(answer, monkeypatch):
    calls = []
    monkeypatch.setattr(
        exported_models, "_log_model", lambda run, folder, copied: calls.append(copied) or "m-1"
    )
    for most, how in ((10**12, "auto"), (0, "auto"), (0, "copy"), (10**12, "reference")):
        monkeypatch.setattr(exported_models, "COPIED", most)
        served = exported_models.register_export(None, answer.folder, how)
        assert served.address == "models:/m-1"
    assert calls == [True, False, True, False]
    assert exported_models.register_export(None, answer.folder, "no") is None
    with pytest.raises(ValueError, match="Unknown register 'coppy'. Did you mean 'copy'"):
        check_register("coppy")


def test_another_allocation_does_not_become_a_version_of_the_selection(answer, tmp_path, caplog):
    alias = ALIAS.partition("@")[2]
    before = answer.client.get_model_version_by_alias("mine", alias).version
    command = ["export", "--run", ALIAS, "--bits", "llm=4", "--no-verify"]
    main([*command, "--out", str(tmp_path / "other")])
    assert "this is another model, which is exported without that run's scores" in caplog.text
    assert answer.client.get_model_version_by_alias("mine", alias).version == before
    assert read_facts(tmp_path / "other")["trial"] == ""
    assert read_facts(answer.folder)["trial"]
