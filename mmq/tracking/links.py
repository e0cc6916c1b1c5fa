"""How to open a study in MLflow's UI."""

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mmq.tracking.connection import server_address, shown_uri, ui_command
from mmq.tracking.database import store_file
from mmq.tracking.mlflow_ui import artifact_link, chart_link, run_link
from mmq.tracking.offline import short_timeouts
from mmq.tracking.studies import FRONT_PLOT


def browse_lines(study: str, store: str, run_id: str) -> list[str]:
    """Lines for the screen on how to open a study's run, which is in `store`."""
    here = f"MLflow: run {run_id} in {store}"
    path, in_use = store_file(), shown_uri(mlflow.get_tracking_uri()) == store
    elsewhere = [f"{here} (set MLFLOW_TRACKING_URI to it for links)"]
    if not in_use and (path is None or not path.exists()):
        return elsewhere
    try:
        with short_timeouts():
            experiment = MlflowClient().get_run(run_id).info.experiment_id
    except MlflowException:
        if not in_use:  # it is not that store, moved to another place
            return elsewhere
        return [f"{here}, which is unavailable"]
    command, server = ui_command(), server_address()
    return [
        *([f"Browse it: {command}"] if command else []),
        f"Open:      {chart_link(server, experiment, study)}",
        f"Front:     {artifact_link(server, experiment, run_id, FRONT_PLOT)}",
        f"Run:       {run_link(server, experiment, run_id)}",
    ]
