"""Any evaluator runs on any model: foreign ones on every family, bundled ones on a server."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from asking import silent
from chat_server import serving
from logged_runs import refused, runs_of
from mlflow import MlflowClient
from mmq_plugins.embedded import scenes
from mmq_plugins.evaluators.captioning import Captioning
from mmq_plugins.evaluators.gqa import Gqa
from mmq_plugins.evaluators.vqa import Vqa
from stranger import install
from tiny_models import save_tiny

from mmq.cli import main
from mmq.contracts import registry
from mmq.data.source import find_source
from mmq.errors import InputError
from mmq.evaluation.generating import Task, evaluate
from mmq.models.chat_endpoint import connect
from mmq.models.loading import load_model


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    yield install(tmp_path / "stranger", monkeypatch)
    registry.refresh()


def test_a_strangers_evaluator_is_searched_pruned_resumed_and_logged(stranger, store_uri):
    command = "search --model embedded-llava --task docvqa --limit 60 --bits 2,4,16 --study d"
    main([*command.split(), "--n-trials", "4"])
    first = runs_of(store_uri, "trial")
    main([*command.split(), "--n-trials", "9"])
    runs = runs_of(store_uri, "trial")
    assert {run.info.run_id for run in first} < {run.info.run_id for run in runs}
    assert len(runs) == 9
    pruned = [run for run in runs if run.data.tags.get("mmq.state") == "PRUNED"]
    assert pruned
    finished = [run for run in runs if run not in pruned]
    assert all("docvqa/anls" in run.data.metrics for run in finished)
    baseline = next(r for r in runs if r.data.tags["mmq.allocation"] == "vit=16 llm=16")
    assert baseline.data.metrics["docvqa/anls"] > 0.8
    assert baseline.data.params["evaluator.name"] == "docvqa"


@pytest.mark.parametrize("name", ["embedded-blip2", "generic"])
def test_a_strangers_evaluator_scores_every_family_that_writes(
    name, stranger, store_uri, tmp_path
):
    model = name if name != "generic" else save_tiny("idefics3", tmp_path / "tiny")
    main(["trial", "--model", model, "--task", "docvqa", "--limit", "4", "--bits", "llm=8"])
    (run,) = runs_of(store_uri, "single")
    assert 0 <= run.data.metrics["docvqa/anls"] <= 1


def test_a_model_that_writes_nothing_is_refused_before_it_is_loaded(stranger, store_uri, capsys):
    refused(["trial", "--model", "embedded-retrieval", "--task", "docvqa", "--bits", "vit=8"])
    assert "cannot write a short answer" in capsys.readouterr().err


def test_samples_with_two_pictures_go_through_or_are_refused_by_name(
    stranger, store_uri, tmp_path, capsys
):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for k in range(1, 6):
        scenes.render(scenes.make_scene(k, "test")).save(folder / f"{k}.png")
    command = ["trial", "--task", "compare", "--data", str(folder), "--bits", "llm=8"]
    main([*command, "--model", "embedded-llava"])
    (run,) = runs_of(store_uri, "single")
    client = MlflowClient(store_uri)
    path = client.download_artifacts(run.info.run_id, "all_predictions.json", str(tmp_path))
    assert len(json.loads(Path(path).read_text())) == 4
    refused([*command, "--model", "embedded-blip2"])
    assert "sample '1+2' has 2 pictures; Blip2 models take one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "evaluator"),
    [
        ("embedded-llava", Vqa(batch_size=1)),
        ("embedded-llava", Gqa(batch_size=1)),
        ("embedded-blip2", Captioning(batch_size=1, num_beams=1)),
    ],
    ids=["vqa", "gqa", "captioning"],
)
def test_a_model_behind_a_server_is_scored_as_in_this_process(name, evaluator):
    model = load_model(name)
    samples = find_source(evaluator.task, "scenes", "").samples()[:12]
    with Task(evaluator, samples, samples) as task, serving(model) as served:
        expected = evaluate(task, model, silent)
        template = model.protocol(evaluator.answer_format).template
        prompted = replace(task, evaluator=replace(evaluator, prompt=template))
        result = evaluate(prompted, connect(served.address), silent)
    assert [p.text for p in result.predictions] == [p.text for p in expected.predictions]
    assert result.metrics == expected.metrics


def test_an_unknown_format_lists_the_available_ones():
    with pytest.raises(InputError, match="supported formats: none"):
        load_model("embedded-retrieval").protocol(Vqa.answer_format)
