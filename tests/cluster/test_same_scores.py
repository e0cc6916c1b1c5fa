"""A whole search by workers of every launcher: each trial once, with the score of one process."""

from contextlib import ExitStack

import pytest
from mlflow import MlflowClient
from ray_cluster import ray_cluster
from slurm_cluster import slurm_cluster

from mmq.cli import main
from mmq.system.home import home

SEARCH = ["search", "--model", "embedded-llava", "--limit", "4", "--quantizer", "rtn", "--bits",
          "4,8", "--n-trials", "4", "--prune", "false"]  # fmt: skip


def scores(store_uri, study):
    """The scores of a study's trials by allocation, each of which was evaluated once."""
    client = MlflowClient(store_uri)
    experiment = client.get_experiment_by_name("mmq").experiment_id
    query = f"tags.`mmq.kind` = 'trial' and tags.`mmq.study` = '{study}'"
    runs = client.search_runs([experiment], query)
    assert {run.info.status for run in runs} == {"FINISHED"}
    pairs = [(run.data.tags["mmq.allocation"], run.data.metrics["score"]) for run in runs]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("launcher", ["local", "ray", "slurm"])
def test_workers_of_a_launcher_find_the_scores_of_one_process(
    launcher, store_uri, tmp_path, monkeypatch, capfd
):
    data = home() / "data"
    data.mkdir(parents=True, exist_ok=True)

    def in_home(name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(data)
        monkeypatch.setenv("MMQ_HOME", str(tmp_path / name))

    options = ["--launcher", launcher, "--workers", "2", "--study", "together"]
    with ExitStack() as stack:
        if launcher == "ray":
            options += ["--address", stack.enter_context(ray_cluster()).address]
        elif launcher == "slurm":
            cluster = stack.enter_context(slurm_cluster())
            for name in ("PATH", "SLURM_CONF"):
                monkeypatch.setenv(name, cluster.env[name])
        in_home("one")
        main([*SEARCH, "--study", "alone"])
        in_home("many")
        main([*SEARCH, *options])
    alone = scores(store_uri, "alone")
    assert len(alone) >= 4
    assert scores(store_uri, "together") == alone
