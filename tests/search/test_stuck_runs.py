"""A run that cannot be logged blocks no other: it is set aside, listed, retried or removed."""

import os
import shutil

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mmq_search.status import status
from PIL import Image
from test_study import EVAL_SPEC, open_study, record, result

from mmq.artifacts import unlogged
from mmq.cli.store import store
from mmq.tracking import study_run
from mmq.tracking.connection import connect
from mmq.tracking.late_logging import log_unlogged


@pytest.fixture
def waiting(store_uri, tmp_path, monkeypatch):
    """A study, its run, and two trials that were recorded and not logged."""
    monkeypatch.setenv("MMQ_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    MlflowClient(store_uri).create_experiment("e", f"{tmp_path}/artifacts")
    Image.new("RGB", (4, 4)).save("x.jpg")
    study = open_study(tmp_path / "home")
    run = study_run("e", "s", [EVAL_SPEC], None)
    with monkeypatch.context() as patch:
        patch.setattr("mmq.tracking.studies.log_unlogged", lambda client: None)
        shutil.rmtree(tmp_path / "artifacts", ignore_errors=True)
        (tmp_path / "artifacts").write_text("a file, where the artifacts should go")
        for _ in range(2):
            pending = study.ask()
            with run.trial_run(record(pending).spec) as trial:
                study.records.put(record(pending).in_run(trial.run_id))
                trial.finish(result(pending))
            study.tell(pending)
        (tmp_path / "artifacts").unlink()
    first, second = (path for _, path in unlogged.waiting())
    return MlflowClient(store_uri), first, second


def run_id(path):
    return path.name.partition("@")[0]


def ask(*arguments):
    return CliRunner().invoke(store, arguments, catch_exceptions=False).output


def is_finished(client, path):
    run = client.get_run(run_id(path))
    return run.info.status == "FINISHED" and run.data.metrics["score"] == 80


def test_an_unavailable_artifact_store_delays_logging_and_loses_nothing(waiting):
    client, first, second = waiting
    assert len(unlogged.waiting()) == 2
    assert client.get_run(run_id(first)).info.status == "RUNNING"
    connect("e")  # a run that waits is not reaped
    log_unlogged(client)
    assert is_finished(client, first)
    assert is_finished(client, second)
    assert unlogged.summary() == ""


def test_a_deleted_run_becomes_stuck_and_can_be_retried(waiting, caplog):
    client, first, second = waiting
    client.delete_run(run_id(first))
    log_unlogged(client)
    assert is_finished(client, second)
    assert f"The run {run_id(first)} cannot be logged and was moved" in caplog.text
    assert "mlflow runs restore" in ask("stuck")
    assert "Runs: 1 cannot be logged" in ask("list")
    assert "Runs: 1 cannot be logged" in CliRunner().invoke(status, ["s"]).output
    assert "could not be logged" in ask("stuck", "--retry")  # still deleted
    client.restore_run(run_id(first))
    assert "No runs are waiting" in ask("stuck", "--retry")
    assert is_finished(client, first)


def test_stuck_runs_can_be_removed(waiting):
    client, first, _ = waiting
    client.delete_run(run_id(first))
    log_unlogged(client)
    assert "removed" in ask("stuck", "--remove")
    assert "No runs are waiting" in ask("stuck")


def empty(path):
    (path / "record.json").write_text("")


def cut(path):
    text = (path / "record.json").read_text()
    (path / "record.json").write_text(text[: len(text) // 2])


def other_digit(path):
    text = (path / "record.json").read_text()
    (path / "record.json").write_text(text.replace("80", "20"))


def no_checksums(path):
    (path / "checksums.json").unlink()


def a_file(path):
    shutil.rmtree(path)
    path.write_text("")


def nothing_in_it(path):
    shutil.rmtree(path)
    path.mkdir()


def a_loop(path):
    shutil.rmtree(path)
    path.symlink_to(path)


DAMAGES = [empty, cut, other_digit, no_checksums, a_file, nothing_in_it, a_loop]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_replaced_by_that_of_the_study(waiting, caplog, damage):
    client, first, second = waiting
    damage(first)
    log_unlogged(client)
    assert is_finished(client, first)
    assert is_finished(client, second)
    assert "is damaged" in caplog.text
    assert unlogged.summary() == ""


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_with_a_damaged_record_and_no_other_becomes_stuck(waiting, tmp_path, damage):
    client, first, second = waiting
    shutil.rmtree(tmp_path / "home" / "studies" / "s")
    damage(first)
    log_unlogged(client)
    assert "score" not in client.get_run(run_id(first)).data.metrics
    assert is_finished(client, second)
    assert [each.run_id for each in unlogged.stuck()] == [run_id(first)]
    connect("e")
    log_unlogged(client)  # and nothing comes of it later


def test_a_damaged_file_beside_the_record_is_left_out(waiting, caplog):
    client, first, _ = waiting
    (first / "layers.json").write_text("{")
    log_unlogged(client)
    assert is_finished(client, first)
    assert "layers.json is damaged" in caplog.text
    files = {each.path for each in client.list_artifacts(run_id(first))}
    assert "layers.json" not in files
    assert "all_predictions.json" in files


def test_a_stray_file_is_ignored(waiting, tmp_path):
    client, first, second = waiting
    (tmp_path / "home" / "unlogged" / "notes.txt").write_text("mine")
    os.mkfifo(tmp_path / "home" / "unlogged" / "pipe")
    log_unlogged(client)
    assert is_finished(client, first)
    assert is_finished(client, second)


def test_a_record_in_mlflow_that_was_changed_is_not_used(waiting, tmp_path):
    from mmq.tracking import fetch_record

    client, first, _ = waiting
    log_unlogged(client)
    assert fetch_record(run_id(first)).metrics
    (path,) = (tmp_path / "artifacts").glob(f"{run_id(first)}/**/record.json")
    text = path.read_text()
    for changed in (text.replace("80", "20"), text.replace('"seal"', '"seam"'), text[:99], ""):
        path.write_text(changed)
        assert fetch_record(run_id(first)) is None
