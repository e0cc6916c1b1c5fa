"""`mmq export`: from a trial's run to a folder, by the command line."""

import shutil

import pytest
from logged_runs import refused, runs_of
from mlflow import MlflowClient
from model_folders import copied, edit_weights

from mmq.cli import main
from mmq.export.facts import read_facts

TRIAL = ["trial", "--task", "retrieval", "--limit", "6"]
TRIAL += ["--bits", "vit=4,qformer=8", "--group-size", "64"]


def test_a_trials_run_is_exported_with_its_scores_and_logged(store_uri, tmp_path, capsys):
    main([*TRIAL, "--model", "embedded-retrieval"])
    (trial,) = runs_of(store_uri, "single")
    out = tmp_path / "mine"
    main(["export", "--run", trial.info.run_id, "--out", str(out), "--verify-samples", "3"])
    text = capsys.readouterr().out
    assert f"Exported to {out}" in text
    assert "64 of 64 weights read back bit for bit, both rounded to float16" in text
    assert read_facts(out)["quantizer_options"]["group_size"] == 64
    assert "| trial | retrieval/mean_recall |" in (out / "README.md").read_text()
    (run,) = runs_of(store_uri, "export")
    assert run.info.status == "FINISHED"
    assert run.data.tags["mmq.exported_from"] == trial.info.run_id
    assert run.data.metrics["export/weights_equal"] == 64
    assert run.data.metrics["export/outputs"] == 3
    assert run.data.params["export.target"] == "torch"
    artifacts = [a.path for a in MlflowClient(store_uri).list_artifacts(run.info.run_id)]
    assert "README.md" in artifacts
    main(["evaluate-baseline", *TRIAL[1:5], "--model", str(out)])
    (baseline,) = (r for r in runs_of(store_uri, "single") if r.info.run_id != trial.info.run_id)
    assert baseline.data.metrics["score"] > 0


def test_a_source_that_changed_since_the_trial_is_refused(store_uri, tmp_path, capsys):
    folder = copied(tmp_path / "model")
    main([*TRIAL, "--model", str(folder)])
    (trial,) = runs_of(store_uri, "single")
    edit_weights(folder, lambda tensors: tensors["itm_head.bias"].add_(1))
    out = tmp_path / "mine"
    refused(["export", "--run", trial.info.run_id, "--out", str(out)])
    assert "changed since the trial" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--target", "gufg"], "Unknown target 'gufg'"),
        (["--verify-samples", "0"], "give --no-verify to skip the proof"),
        (["--bits", "vit=16"], "nothing to export"),
        (["--dtype-of", "1"], "Unknown option 'dtype-of'"),
    ],
)
def test_bad_input_is_refused_at_once(store_uri, tmp_path, capsys, options, reason):
    command = ["export", "--model", "embedded-retrieval", "--task", "retrieval", "--bits", "vit=4"]
    refused([*command, "--out", str(tmp_path / "mine"), *options])
    assert reason in capsys.readouterr().err


def test_a_run_that_fails_its_proof_exits_with_2_and_is_failed(
    store_uri, tmp_path, capsys, monkeypatch
):
    from mmq_plugins.targets.torch_checkpoint import TorchCheckpoint

    monkeypatch.setattr(TorchCheckpoint, "read_back", lambda self, folder: iter(()))
    command = ["export", "--model", "embedded-retrieval", "--task", "retrieval", "--bits", "vit=4"]
    refused([*command, "--limit", "4", "--out", str(tmp_path / "mine")])
    assert "24 of 24 weights differ" in capsys.readouterr().err
    assert (tmp_path / "mine.unverified").is_dir()
    assert [run.info.status for run in runs_of(store_uri, "export")] == ["FAILED"]
    shutil.rmtree(tmp_path / "mine.unverified")
