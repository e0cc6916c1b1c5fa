"""Work is saved beside the store that it is logged to, wherever the process runs."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from mmq.system import home as home_module
from mmq.system.home import home


@pytest.fixture(autouse=True)
def _unset(monkeypatch, tmp_path):
    for name in ("MMQ_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(home_module.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))


def in_folder(monkeypatch, folder, **variables):
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return home()


def test_without_anything_set_it_is_in_the_current_folder(tmp_path):
    assert home() == tmp_path / ".mmq"


def test_mmq_home_comes_first(tmp_path, monkeypatch):
    own = in_folder(
        monkeypatch, tmp_path, MMQ_HOME="own", MLFLOW_TRACKING_URI="sqlite:////nowhere/mlflow.db"
    )
    assert own == tmp_path / "own"


@pytest.mark.parametrize(
    "uri",
    ["sqlite:///{}/mlflow.db", "sqlite+pysqlite:///{}/a b.db?timeout=9", "file://{}/mlruns"],
)
def test_it_is_beside_a_local_store_from_whichever_folder(tmp_path, monkeypatch, uri):
    kept = tmp_path / "kept"
    kept.mkdir()
    for folder in ("one", "tmp/two"):
        result = in_folder(
            monkeypatch, tmp_path / folder, MLFLOW_TRACKING_URI=uri.format(kept), MLFLOW_RUN_ID="a"
        )
        assert result == kept / ".mmq"


@pytest.mark.parametrize(
    "uri", ["sqlite:///mlflow.db", "sqlite:///:memory:", "sqlite://", "sqlite:////nowhere/m.db",
            "http://host:5000", "nonsense", ""],
)  # fmt: skip
def test_other_stores_leave_it_in_the_current_folder(tmp_path, monkeypatch, uri):
    assert in_folder(monkeypatch, tmp_path / "a", MLFLOW_TRACKING_URI=uri) == tmp_path / "a/.mmq"


def test_a_fetched_project_has_a_folder_of_the_users_for_each_server(tmp_path, monkeypatch):
    data = tmp_path / "data"

    def run(folder, uri):
        return in_folder(
            monkeypatch, tmp_path / "tmp" / folder, MLFLOW_TRACKING_URI=uri, MLFLOW_RUN_ID="a",
            XDG_DATA_HOME=str(data),
        )  # fmt: skip

    first = run("clone-1", "http://me:secret@host:5000/")
    assert first == run("clone-2", "http://host:5000")
    assert first.parent == data / "mmq"
    assert "secret" not in str(first)
    assert run("clone-3", "http://other:5000") != first
    monkeypatch.delenv("MLFLOW_RUN_ID")  # somebody who works in a temporary folder
    assert home() == tmp_path / "tmp" / "clone-3" / ".mmq"


def test_an_older_folder_that_is_not_used_any_more_is_reported_once(tmp_path, monkeypatch, caplog):
    older, kept = tmp_path / ".mmq", tmp_path / "kept"
    (older / "records").mkdir(parents=True)
    kept.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{kept}/mlflow.db")
    with caplog.at_level(logging.WARNING):
        assert home() == home() == kept / ".mmq"
    assert len(caplog.records) == 1
    assert f"MMQ_HOME={older}" in caplog.text


def test_mlflow_run_from_another_folder_works_where_it_was_started(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    program = "from mmq.system.home import home; print('HOME', home())"
    (project / "MLproject").write_text(
        f'name: p\nentry_points:\n  main:\n    command: {sys.executable} -c "{program}"\n'
    )
    command = [sys.executable, "-m", "mlflow", "run", str(project), "--env-manager", "local"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"HOME {Path(tmp_path) / '.mmq'}\n" in result.stdout, result.stderr
