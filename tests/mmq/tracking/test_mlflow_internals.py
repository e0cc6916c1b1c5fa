"""MLflow's private API is what mmq expects, in the versions that it names."""

import base64
import json
import sqlite3
import zlib
from contextlib import closing

import mlflow
import pytest
from mlflow import MlflowClient

from mmq.tracking import mlflow_internals
from mmq.tracking.mlflow_internals import (
    STORE_LOGGER,
    ChartView,
    StorePaths,
    artifact_uri,
    chart_link,
    chart_view_tag,
    front_tags,
    has_experiments,
    store_engine,
)
from mmq.tracking.queries import trial_filter


def test_the_installed_mlflow_is_a_version_that_its_internals_were_checked_with():
    minor = ".".join(mlflow.__version__.split(".")[:2])
    assert minor in mlflow_internals.VERSIONS, (
        f"MLflow {mlflow.__version__}: its private API was checked with "
        f"{', '.join(mlflow_internals.VERSIONS)}. Run tests/mmq/tracking and the browser tests, "
        f"compare each use in mmq/tracking/mlflow_internals.py, then add {minor!r} to VERSIONS."
    )


def test_a_store_has_every_column_with_paths(store_uri):
    MlflowClient(store_uri).search_experiments()
    with closing(sqlite3.connect(store_uri.removeprefix("sqlite:///"))) as database:
        store = StorePaths(database)
        assert list(store.columns()) == list(StorePaths.COLUMNS)


def test_paths_and_tags_are_read_and_changed_as_the_client_sees_them(store_uri):
    client = MlflowClient(store_uri)
    experiment = client.create_experiment("x", "/old/a", tags={"mmq.store": "/old/mlflow.db"})
    run = client.create_run(experiment)
    assert run.info.artifact_uri == artifact_uri("/old/a", run.info.run_id)
    with closing(sqlite3.connect(store_uri.removeprefix("sqlite:///"))) as database, database:
        store = StorePaths(database)
        assert (int(experiment), "/old/a") in store.experiments()
        assert store.run_ids(int(experiment)) == [run.info.run_id]
        assert store.experiment_tags("mmq.store") == ["/old/mlflow.db"]
        store.set_experiment_tags("mmq.store", "/new/mlflow.db")
        ((rowid, path),) = store.read("runs", "artifact_uri")
        assert path == run.info.artifact_uri
        store.write("runs", "artifact_uri", [(rowid, "/new/a")])
    assert client.get_run(run.info.run_id).info.artifact_uri == "/new/a"
    assert client.get_experiment(experiment).tags["mmq.store"] == "/new/mlflow.db"


def test_a_store_is_complete_when_it_has_an_experiment(tmp_path, store_uri):
    MlflowClient(store_uri).search_experiments()
    path = tmp_path / "incomplete.db"
    assert not has_experiments(path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table experiments (experiment_id integer)")
    assert not has_experiments(path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("insert into experiments values (0)")
    assert has_experiments(path)


def test_a_server_has_no_engine():
    assert store_engine(MlflowClient("http://127.0.0.1:9")) is None


def test_the_logger_of_database_errors_is_the_one_that_mlflow_uses():
    from mlflow.store.db import utils

    assert utils._logger.name == STORE_LOGGER


def test_the_chart_view_is_linked_by_its_tag_and_shows_the_studys_trials():
    view = ChartView("s", trial_filter("s"), ["vit", "llm"], "vqa/accuracy", has_drop=True)
    key, value = chart_view_tag(view)
    shared = key.removeprefix("mlflow.sharedViewState.")
    assert chart_link("http://host", "7", "s") == (
        "http://host/#/experiments/7/runs?workflowType=machine_learning"
        f"&compareRunsMode=CHART&viewStateShareKey={shared}"
    )
    kind, _, text = json.loads(value)["state"].partition(";")
    state = json.loads(zlib.decompress(base64.b64decode(text)))
    assert kind == "deflate"
    assert state["searchFilter"] == "tags.`mmq.study` = 's' and tags.`mmq.kind` = 'trial'"
    assert [card["type"] for card in state["compareRunCharts"]] == [
        "SCATTER", "PARALLEL", "SCATTER",
    ]  # fmt: skip
    assert "params.`bits.vit`" in state["selectedColumns"]
    drop, parallel, _ = state["compareRunCharts"]
    assert (drop["xaxis"]["key"], drop["yaxis"]["key"]) == ("stored_bpw", "drop")
    assert parallel["selectedParams"] == ["width.vit", "width.llm"]


def test_the_view_opens_every_group_that_a_trial_can_be_in():
    _, value = chart_view_tag(ChartView("s", trial_filter("s"), ["vit"], "score"))
    text = json.loads(value)["state"].partition(";")[2]
    state = json.loads(zlib.decompress(base64.b64decode(text)))
    (key,) = state["groupBy"]["groupByKeys"]
    groups = [front_tags(name)[key["groupByData"]] for name in ("front", "dominated")]
    assert sorted(groups, reverse=True) == groups  # the order of the runs: the front first
    opened = {f"{key['mode']}.{key['groupByData']}.{group}": True for group in groups}
    assert state["groupsExpanded"] == opened


@pytest.mark.parametrize("location", ["/a/b", "file:///a/b", "mlflow-artifacts:/7", "s3://bucket"])
def test_artifacts_are_in_a_folder_per_run(location):
    assert artifact_uri(location, "r") == f"{location}/r/artifacts"
