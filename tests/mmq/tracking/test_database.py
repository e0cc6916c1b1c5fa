"""Processes that open a new MLflow store at the same moment."""

import subprocess
import sys

import mlflow
import pytest
from mlflow import MlflowClient

from mmq.errors import InputError
from mmq.tracking.connection import connect

OPEN = """
import sys
from mmq.tracking.connection import connect
print("ready", flush=True)
sys.stdin.readline()
print(connect(sys.argv[1])[1])
"""


def test_a_new_store_is_opened_by_several_at_once(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"MLFLOW_TRACKING_URI": uri},
            cwd=tmp_path,
        )
        for name in ("one", "one", "two")
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    ids = [process.communicate(timeout=600)[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert ids[0] == ids[1] != ids[2]
    experiments = MlflowClient(uri).search_experiments()
    assert {e.name for e in experiments} == {"Default", "one", "two"}
    assert [p.name for p in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("nowhere/mlflow.db", "there is no folder"),
        ("folder", "it is not a file"),
        ("text", "not a SQLite database"),
    ],
)
def test_a_path_that_cannot_be_a_store_is_refused_at_once(tmp_path, monkeypatch, path, problem):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("a note, not a database")
    uri = f"sqlite:///{tmp_path}/{path}"
    mlflow.set_tracking_uri(uri)
    with pytest.raises(InputError, match=f"{problem}.*MLFLOW_TRACKING_URI"):
        connect("e")
    mlflow.set_tracking_uri(None)
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / "text").read_text() == "a note, not a database"
