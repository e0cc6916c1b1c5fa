"""Processes that open a new MLflow store at the same moment."""

import subprocess
import sys

from mlflow import MlflowClient

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
    ids = [process.communicate(timeout=60)[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert ids[0] == ids[1] != ids[2]
    found = MlflowClient(uri).search_experiments()
    assert {e.name for e in found} == {"Default", "one", "two"}
    assert [p.name for p in tmp_path.iterdir()] == ["mlflow.db"]
