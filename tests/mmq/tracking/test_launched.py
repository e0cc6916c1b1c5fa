"""MLFLOW_RUN_ID: the run of `mlflow run` is adopted once; other runs are unchanged."""

import threading

import mlflow
import pytest
from mlflow import MlflowClient

from mmq.errors import InputError
from mmq.tracking import launched
from mmq.tracking.connection import connect
from mmq.tracking.queries import all_runs
from mmq.tracking.runs import plain_run
from mmq.tracking.studies import open_study

PROJECT = {"mlflow.source.type": "PROJECT", "mlflow.project.entryPoint": "main"}


@pytest.fixture
def client(store_uri, monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return MlflowClient(store_uri)


@pytest.fixture
def started(client, monkeypatch):
    """Export a new run's id, as the launcher of mmq does."""

    def start(tags=PROJECT, experiment="job"):
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment)
        run_id = client.create_run(number, run_name="theirs", tags=tags).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        return run_id

    return start


def log_a_run(experiment="", name="mine"):
    with plain_run(experiment, name, {"a": name}) as run:
        return run


def runs(client, experiment):
    found = client.get_experiment_by_name(experiment)
    return {r.info.run_id: r for r in all_runs(client, [found.experiment_id], "")}


def test_the_first_command_of_a_project_adopts_its_run_and_the_second_makes_its_own(
    client, started, caplog
):
    theirs = started()
    assert log_a_run().run_id == theirs
    second = log_a_run(name="second")
    assert second.run_id != theirs
    assert len(caplog.records) == 1
    assert "unset MLFLOW_RUN_ID" in caplog.text
    result = runs(client, "job")
    assert {r.info.run_name: r.info.status for r in result.values()} == {
        "mine": "FINISHED",
        "second": "FINISHED",
    }
    assert result[second.run_id].data.tags["mmq.launched_by"] == theirs
    assert result[theirs].data.params["a"] == "mine"


def test_two_studies_under_one_id_are_both_listed(client, started):
    started()
    for study in ("a", "b"):
        with open_study("", study, None, f"imported {study}"):
            pass
    result = [r for r in runs(client, "job").values() if r.data.tags["mmq.kind"] == "study"]
    assert {r.data.tags["mmq.study"] for r in result} == {"a", "b"}


@pytest.mark.parametrize("ended", [True, False])
def test_a_jobs_own_run_is_left_as_it_is_and_has_ours_nested(client, started, ended):
    theirs = started(tags={})
    if ended:
        client.set_terminated(theirs, "FINISHED")
    before = client.get_run(theirs)
    ours = [log_a_run(name=name).run_id for name in ("one", "two")]
    after = client.get_run(theirs)
    assert after.to_dictionary() == before.to_dictionary()
    result = runs(client, "job")
    assert {result[each].data.tags["mlflow.parentRunId"] for each in ours} == {theirs}
    assert {result[each].data.tags["mmq.launched_by"] for each in ours} == {theirs}


@pytest.mark.parametrize("tag", ["study", "trial", "single", "analysis"])
def test_a_run_that_mmq_has_used_is_not_adopted(client, started, tag):
    theirs = started(tags=PROJECT | {"mmq.kind": tag})
    assert log_a_run().run_id != theirs
    assert client.get_run(theirs).info.run_name == "theirs"


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_that_has_ended_is_not_adopted(client, started, status):
    theirs = started()
    client.set_terminated(theirs, status)
    assert log_a_run().run_id != theirs
    assert client.get_run(theirs).info.status == status


def test_a_projects_run_inside_another_project_is_adopted(client, started):
    outer = started()
    inner = started(tags=PROJECT | {"mlflow.parentRunId": outer})
    assert log_a_run().run_id == inner
    assert client.get_run(outer).info.run_name == "theirs"


@pytest.mark.parametrize("stale", ["0" * 32, "no id", "deleted"])
def test_a_stale_run_id_is_reported_and_does_not_stop_the_command(
    client, started, monkeypatch, caplog, stale
):
    if stale == "deleted":
        client.delete_run(started())
    else:
        monkeypatch.setenv("MLFLOW_RUN_ID", stale)
    run = log_a_run()
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert client.get_experiment(run.experiment_id).name == "mmq"
    assert "unset MLFLOW_RUN_ID" in caplog.text


def test_an_explicit_experiment_overrides_the_projects_run_with_a_warning(client, started, caplog):
    theirs = started()
    run = log_a_run("other")
    assert client.get_experiment(run.experiment_id).name == "other"
    assert client.get_run(theirs).info.run_name == "theirs"
    assert "'job'" in caplog.text
    assert "'other'" in caplog.text
    caplog.clear()
    assert log_a_run("job").run_id == theirs
    assert not caplog.text


def test_two_commands_at_the_same_moment_adopt_a_run_once(client, started, monkeypatch):
    theirs = started()
    number = client.get_run(theirs).info.experiment_id
    at_once, used = threading.Barrier(2), launched._used

    def look_together(run):
        result = used(run)
        at_once.wait(300)
        return result

    monkeypatch.setattr(launched, "_used", look_together)
    monkeypatch.setattr(launched, "owner", lambda: f"host:{threading.get_ident()}:0")
    result = []
    threads = [
        threading.Thread(target=lambda: result.append(launched.adopt(client, number)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result, key=str) == sorted([None, theirs], key=str)


def test_a_continued_study_leaves_a_jobs_run_as_it_is(client, started, monkeypatch):
    with open_study("job", "s", None, "search s") as first:
        parent = first.address
    theirs = started(tags={})
    with open_study("", "s", parent, "search s") as again:
        assert again.run_id == parent[1]
    assert client.get_run(theirs).info.run_name == "theirs"
    monkeypatch.setenv("MLFLOW_RUN_ID", parent[1])  # its own run: nothing to adopt, nor to report
    with open_study("", "s", parent, "search s") as again:
        assert again.run_id == parent[1]


def test_the_experiment_of_the_environment_is_the_default(client, monkeypatch):
    mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named")
    named = connect("")[1]
    assert client.get_experiment(named).name == "named"
    assert client.get_experiment(connect("asked")[1]).name == "asked"
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", named)
    assert connect("")[1] == named
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "12345")
    with pytest.raises(InputError, match="MLFLOW_EXPERIMENT_ID: .* no experiment '12345'"):
        connect("")
