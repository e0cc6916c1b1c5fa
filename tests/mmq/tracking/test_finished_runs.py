"""Finished runs are logged at once into a database, one by one to a server."""

from mlflow import MlflowClient

from mmq.tracking import finished_runs
from mmq.tracking.finished_runs import FinishedRun, log_finished, log_with_client
from mmq.tracking.mlflow_internals import store_engine


def test_runs_inserted_at_once_are_those_that_the_client_makes(store_uri):
    client = MlflowClient(store_uri)
    experiment = client.create_experiment("x")
    tags = {"mlflow.user": "someone", "mmq.kind": "trial"}
    run = FinishedRun("vit=4", {"bits.vit": "4"}, {"score": 0.5, "bpw": 3}, tags)
    assert store_engine(client) is not None
    (inserted,) = log_finished(client, experiment, [run], quiet=True)
    logged = log_with_client(client, experiment, run)

    def facts(run_id):
        values = client.get_run(run_id).to_dictionary()
        for name in ("run_id", "run_uuid", "start_time", "end_time"):
            values["info"].pop(name, None)
        values["info"]["artifact_uri"] = values["info"]["artifact_uri"].replace(run_id, "")
        return values

    assert facts(inserted) == facts(logged)
    assert [m.value for m in client.get_metric_history(inserted, "score")] == [0.5]
    assert {r.info.run_id for r in client.search_runs([experiment], "metrics.score > 0.4")} == {
        inserted, logged
    }  # fmt: skip
    client.log_metric(inserted, "later", 1.0)


def test_a_server_gets_the_runs_one_by_one(store_uri, monkeypatch):
    client = MlflowClient(store_uri)
    experiment = client.create_experiment("x")
    monkeypatch.setattr(finished_runs, "store_engine", lambda client: None)
    monkeypatch.setattr(finished_runs, "THREADS", 1)
    runs = [FinishedRun(f"r{k}", {}, {"score": k}, {}) for k in range(3)]
    ids = log_finished(client, experiment, runs, quiet=True)
    assert [client.get_run(run_id).info.run_name for run_id in ids] == ["r0", "r1", "r2"]
