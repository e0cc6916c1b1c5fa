"""A moved or copied project works in its new place and does not change the old one."""

import os
import shutil
import sqlite3
from contextlib import closing

import mlflow
import pytest
from mlflow import MlflowClient

from mmq.errors import InputError
from mmq.tracking.moved import MARK
from mmq.tracking.runs import plain_run
from mmq.tracking.studies import open_study


@pytest.fixture
def project(tmp_path, empty_store, monkeypatch):
    """Enter a folder with a store, created if missing."""

    def enter(name, uri=None):
        folder = tmp_path / name
        if not folder.exists():
            folder.mkdir()
            shutil.copy(empty_store, folder / "mlflow.db")
        monkeypatch.chdir(folder)
        uri = uri or f"sqlite:///{os.getcwd()}/mlflow.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        return folder

    yield enter
    mlflow.set_tracking_uri(None)


def log(text, name="mine"):
    """A run with a file; its id."""
    with plain_run("e", name, {}) as run:
        run.log_table("words.json", [{"word": text}])
    return run.run_id


def words(run_id):
    path = MlflowClient().download_artifacts(run_id, "words.json")
    with open(path) as file:
        return file.read()


def unmarked(folder):
    """The store as a version of mmq without marks left it."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("delete from experiment_tags where key = ?", (MARK,))


def files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("name", ["new", "a b"])
def test_a_moved_project_reads_and_writes_in_its_new_place_only(project, caplog, marked, name):
    old = project("old")
    before = log("one")
    if not marked:
        unmarked(old)
    new = old.with_name(name)
    old.rename(new)
    project(name)
    after = log("two")
    assert "one" in words(before)
    assert "two" in words(after)
    assert not old.exists()
    assert caplog.text.count(f"was in {old}") == 1
    caplog.clear()
    log("three")
    assert not caplog.text
    assert {p.parent.parent.name for p in new.rglob("words.json")} >= {before, after}


@pytest.mark.parametrize("marked", [True, False])
def test_a_copied_project_leaves_the_original_untouched(project, marked):
    old = project("old")
    before = log("one")
    if not marked:
        unmarked(old)
    shutil.copytree(old, old.with_name("copy"))
    kept = files(old)
    copy = project("copy")
    after = log("two")
    assert files(old) == kept
    assert (copy / "mlruns").is_dir()
    shutil.rmtree(old)
    assert "one" in words(before)
    assert "two" in words(after)
    assert not old.exists()


def test_a_copied_database_alone_writes_beside_itself_and_reads_the_originals_files(project):
    old = project("old")
    before = log("one")
    new = old.with_name("new")
    new.mkdir()
    shutil.copy(old / "mlflow.db", new)
    kept = files(old)
    project("new")
    after = log("two")
    assert files(old) == kept
    assert "one" in words(before)
    assert list(new.glob(f"mlruns/*/{after}/artifacts/words.json"))


def test_a_link_to_the_project_is_not_a_move(project, tmp_path, caplog):
    real = project("real")
    log("one")
    (tmp_path / "link").symlink_to(real)
    project("link", f"sqlite:///{tmp_path}/link/mlflow.db")
    log("two")
    assert not caplog.text


def test_artifacts_go_beside_the_store_from_whichever_folder(project, tmp_path):
    store = project("store")
    project("elsewhere", f"sqlite:///{store}/mlflow.db")
    run_id = log("one")
    assert list(store.glob(f"mlruns/*/{run_id}/artifacts/words.json"))
    assert not (tmp_path / "elsewhere" / "mlruns").exists()


def test_a_working_folder_that_moved_takes_its_artifacts_along(project, tmp_path):
    store, uri = project("store"), f"sqlite:///{tmp_path}/store/mlflow.db"
    old = project("work", uri)
    MlflowClient().create_experiment("e")  # MLflow chooses the working folder
    before = log("one")
    old.rename(tmp_path / "moved")
    moved = project("moved", uri)
    after = log("two")
    assert not old.exists()
    assert "one" in words(before)
    assert list(moved.glob(f"mlruns/*/{after}/artifacts/words.json"))
    assert not (store / "mlruns").exists()


def test_a_study_is_resumed_where_its_store_was_moved_to(project):
    old = project("old")
    with open_study("e", "s", None, "search s") as run:
        parent = run.address
    old.rename(old.with_name("new"))
    project("new")
    with open_study("e", "s", parent, "search s") as again:
        assert again.run_id == run.run_id
    project("other")
    with pytest.raises(InputError, match="is logged to the MLflow store sqlite:"):
        open_study("e", "s", parent, "search s")


def test_a_moved_store_that_cannot_be_written_is_refused(project, monkeypatch):
    old = project("old")
    log("one")
    new = old.with_name("new")
    old.rename(new)
    project("new")
    with closing(sqlite3.connect(new / "mlflow.db")) as database, database:
        database.execute("create trigger t before update on experiments "
                         "begin select raise(abort, 'not writable'); end")  # fmt: skip
    with pytest.raises(InputError, match=r"moved here from .*old.*not writable.*Move it back"):
        log("two")
    assert not old.exists()
