"""Helpers that read what commands log, and expect refusals."""

import pytest
from mlflow import MlflowClient

from mmq.cli import main


def runs_of(uri, kind):
    """The runs of a kind in the experiment mmq."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("mmq").experiment_id
    return client.search_runs([experiment], f"tags.`mmq.kind` = '{kind}'")


def refused(command):
    """Run a command that must end with exit code 2."""
    with pytest.raises(SystemExit) as error:
        main(command)
    assert error.value.code == 2
