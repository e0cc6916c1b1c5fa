"""Where to look: a link into the MLflow UI with a score-against-bpw chart view ready.

Saved chart views are experiment tags that the MLflow UI (3.17) reads but does not document; a
browser test guards them.
"""

import base64
import json
import time
import uuid
import zlib
from collections.abc import Sequence
from typing import Any

TAG_PREFIX = "mlflow.sharedViewState."
DEFAULT_SERVER = "http://127.0.0.1:5000"
SECTION = "mmq"


def view_id(study: str) -> str:
    """The stable id of a study's chart view."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"mmq/{study}").hex


def trial_filter(study: str) -> str:
    """MLflow search filter for the trials of a study, without their parent."""
    return f"tags.`mmq.study` = '{study}' and tags.`mmq.kind` = 'trial'"


def _scatter(x: str, y: str) -> dict[str, Any]:
    axes = {"xaxis": x, "yaxis": y}
    card = {name: {"key": key, "type": "METRIC", "index": 0} for name, key in axes.items()}
    return {"type": "SCATTER", "uuid": f"mmq-{x}", **card}


def _cards(params: Sequence[str]) -> list[dict[str, Any]]:
    """Score against bpw, the allocations as parallel coordinates, score against stored bpw."""
    parallel = {
        "type": "PARALLEL",
        "uuid": "mmq-parallel",
        "selectedParams": list(params),
        "selectedMetrics": ["bpw", "score"],
        "showAllRuns": True,
    }
    shared = {"deleted": False, "isGenerated": False, "metricSectionId": SECTION}
    cards = [_scatter("bpw", "score"), parallel, _scatter("stored_bpw", "score")]
    return [{**card, **shared, "runsCountToCompare": 200} for card in cards]


def _state(study: str, components: Sequence[str], score: str) -> dict[str, Any]:
    """The experiment page's state: filter, columns, charts (MLflow's own field names)."""
    params = [f"bits.{name}" for name in components]
    metrics = ("bpw", "stored_bpw", "score", "score_low", "score_high")
    section = {
        "uuid": SECTION,
        "name": f"{score} against size",
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": 2,
        "cardHeight": 420,
    }
    return {
        "searchFilter": trial_filter(study),
        "orderByKey": "metrics.`bpw`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            "attributes.`Created`",
            *(f"params.`{name}`" for name in params),
            *(f"metrics.`{name}`" for name in metrics),
        ],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "SHOWALL",
        "runsVisibilityMap": {},
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "groupBy": None,
        "groupsExpanded": {},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
        "compareRunCharts": _cards(params),
        "compareRunSections": [section],
    }


def chart_view_tag(study: str, components: Sequence[str], score: str) -> tuple[str, str]:
    """Key and value of the experiment tag that holds a study's chart view."""
    state = json.dumps(_state(study, components, score)).encode()
    now = int(time.time() * 1000)
    value = {
        "name": f"front of {study}",
        "createdAt": now,
        "updatedAt": now,
        "state": f"deflate;{base64.b64encode(zlib.compress(state)).decode()}",
    }
    return TAG_PREFIX + view_id(study), json.dumps(value)


def chart_link(server: str, experiment_id: str, study: str) -> str:
    """Address of the experiment page with the study's chart view."""
    # nothing else in the query: a filter there makes the UI drop the saved charts
    query = (
        f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={view_id(study)}"
    )
    return f"{server}/#/experiments/{experiment_id}/runs?{query}"


def run_link(server: str, experiment_id: str, run_id: str) -> str:
    """Address of a run's page."""
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"
