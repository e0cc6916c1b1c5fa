"""Where a study can be looked at, for those who know its run only."""

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.tracking import views
from mmq.tracking.connection import server_address, shown_uri, ui_command
from mmq.tracking.database import store_file
from mmq.tracking.offline import hasty


def places(study: str, store: str, run_id: str) -> list[str]:
    """Lines that tell how to open a study's run, which `store` holds."""
    here = f"MLflow: run {run_id} in {store}"
    path, known = store_file(), shown_uri(mlflow.get_tracking_uri()) == store
    elsewhere = [f"{here} (set MLFLOW_TRACKING_URI to it for links)"]
    if not known and (path is None or not path.exists()):
        return elsewhere
    try:
        with hasty():
            experiment = MlflowClient().get_run(run_id).info.experiment_id
    except MlflowException:
        if not known:  # nor is it that store at another place
            return elsewhere
        return [f"{here}, which cannot be reached now"]
    command, server = ui_command(), server_address()
    return [
        *([f"Browse it: {command}"] if command else []),
        f"Open:      {views.chart_link(server, experiment, study)}",
        f"Front:     {views.run_link(server, experiment, run_id)}",
    ]
