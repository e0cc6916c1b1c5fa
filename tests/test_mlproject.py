"""`mlflow run` as the user starts it, on the project as it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from paper_pairs import PAIRS, good

from mmq.cli import main

ROOT = Path(__file__).parents[1]


def mlflow_run(tmp_path, *arguments):
    env = os.environ | {
        "PATH": str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"],
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MMQ_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
    }
    command = ["mlflow", "run", str(ROOT), "--env-manager", "local", "--experiment-name", "mmq"]
    return subprocess.run(
        [*command, *arguments], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600
    )


def runs(tmp_path, kind):
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("mmq").experiment_id
    return client.search_runs([experiment], f"tags.`mmq.kind` = '{kind}'")


def test_a_search_adopts_the_projects_run_and_a_second_one_continues_it(tmp_path):
    options = ["-P", "limit=8", "-P", "num-beams=1", "-P", "bits=4,16", "-P", "group-size=64"]
    first = mlflow_run(tmp_path, "-e", "search", *options, "-P", "n_trials=3")
    assert first.returncode == 0, first.stderr
    (parent,) = runs(tmp_path, "study")
    assert parent.info.status == "FINISHED"
    assert parent.data.params["quantizer.group_size"] == "64"
    assert parent.data.params["n_trials"] == "3"  # logged by mlflow run itself
    second = mlflow_run(tmp_path, *options, "-P", "n_trials=4")  # main is search
    assert second.returncode == 0, second.stderr
    assert [r.info.run_id for r in runs(tmp_path, "study")] == [parent.info.run_id]
    trials = runs(tmp_path, "trial")
    assert len(trials) == 4
    assert {t.data.tags["mlflow.parentRunId"] for t in trials} == {parent.info.run_id}
    (launcher,) = runs(tmp_path, "continuation")
    assert launcher.info.status == "FINISHED"
    assert parent.info.run_id in launcher.data.tags["mlflow.note.content"]


def test_bad_input_fails_the_projects_run_and_says_why(tmp_path):
    result = mlflow_run(tmp_path, "-e", "trial", "-P", "bits=vit=9")
    assert result.returncode != 0
    assert "bits: 9 is not one of" in result.stderr + result.stdout
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("mmq").experiment_id
    assert [r.info.status for r in client.search_runs([experiment])] == ["FAILED"]


@pytest.mark.parametrize(("model", "task", "bits"), PAIRS)
def test_every_family_and_task_of_the_paper_runs(store_uri, tmp_path, model, task, bits):
    main(["trial", "--model", model, "--task", task, "--bits", bits, "--limit", "12"])
    (trial,) = runs(tmp_path, "single")
    assert trial.info.status == "FINISHED"
    assert good(task, trial.data.metrics["score"])
    assert trial.data.params["calibration.fingerprint"] == "none"  # rtn looks at nothing
    assert len(trial.data.params["data.fingerprint"]) == 20
