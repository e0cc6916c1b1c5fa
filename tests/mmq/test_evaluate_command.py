"""`mmq evaluate --endpoint`: a served model is scored and logged as one in this process."""

import json
from pathlib import Path

import pytest
from chat_server import serving
from logged_runs import refused, runs_of
from mlflow import MlflowClient

from mmq.cli import main
from mmq.models.loading import load_model
from mmq.system.home import home

PROMPT = "{}\nAnswer the question using a single word or phrase."
OPTIONS = ["--limit", "12", "--batch-size", "1", "--prompt", PROMPT]


@pytest.fixture(scope="module")
def model():
    return load_model("embedded-llava")


def test_the_score_is_that_of_the_model_and_logged_alike(store_uri, tmp_path, model, capsys):
    with serving(model) as served:
        main(["evaluate", "--endpoint", served.address, *OPTIONS])
    assert "embedded at http" in capsys.readouterr().out
    main(["evaluate-baseline", "--model", "embedded-llava", *OPTIONS])
    (run,), (own,) = runs_of(store_uri, "endpoint"), runs_of(store_uri, "single")
    for name in ("score", "score_low", "score_high", "vqa/accuracy"):
        assert run.data.metrics[name] == pytest.approx(own.data.metrics[name], abs=1e-5)
    for name in ("data.fingerprint", "evaluator.name", "evaluator.prompt"):
        assert run.data.params[name] == own.data.params[name]
    files = []
    for each in (run, own):
        folder = tmp_path / each.info.run_id
        folder.mkdir()
        client = MlflowClient(store_uri)
        path = client.download_artifacts(each.info.run_id, "all_predictions.json", str(folder))
        files.append(json.loads(Path(path).read_text()))
    assert files[0] == files[1]


def test_a_server_that_fails_loses_no_answer(store_uri, model, capsys):
    command = ["evaluate", *OPTIONS, "--seed", "1", "--concurrency", "1", "--retries", "0"]
    with serving(model, [None] * 5 + [500]) as served:
        refused([*command, "--endpoint", served.address])
        assert "Answers so far are saved" in capsys.readouterr().err
        requests = len(served.requests)
        assert requests == 6
        main([*command, "--endpoint", served.address])
        assert len(served.requests) <= requests + 7
    statuses = sorted(run.info.status for run in runs_of(store_uri, "endpoint"))
    assert statuses == ["FAILED", "FINISHED"]
    assert not list((home() / "outputs").glob("endpoint-*.json"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "write --endpoint http"),
        (["--endpoint", "http://127.0.0.1:9/v1"], "does not respond"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--concurrency", "0"], "0 is not at least 1"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--task", "retrieval"], "ranks pictures"),
    ],
)
def test_bad_input_is_refused_at_once(store_uri, capsys, options, reason):
    refused(["evaluate", *options])
    assert reason in capsys.readouterr().err
