"""MLflow's private API is what mmq expects, in the versions that it names."""

import sqlite3
from contextlib import closing

import mlflow
import pytest
from mlflow import MlflowClient

from mmq.tracking import mlflow_internals
from mmq.tracking.mlflow_internals import (
    STORE_LOGGER,
    StorePaths,
    artifact_uri,
    has_experiments,
    store_engine,
)


def test_the_installed_mlflow_is_a_version_that_its_internals_were_checked_with():
    minor = ".".join(mlflow.__version__.split(".")[:2])
    assert minor in mlflow_internals.VERSIONS, (
        f"MLflow {mlflow.__version__}: its private API was checked with "
        f"{', '.join(mlflow_internals.VERSIONS)}. Run tests/mmq/tracking and the browser tests, "
        f"compare each use in mmq/tracking/mlflow_internals.py and mlflow_ui.py, then add "
        f"{minor!r} to VERSIONS."
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


@pytest.mark.parametrize("location", ["/a/b", "file:///a/b", "mlflow-artifacts:/7", "s3://bucket"])
def test_artifacts_are_in_a_folder_per_run(location):
    assert artifact_uri(location, "r") == f"{location}/r/artifacts"
