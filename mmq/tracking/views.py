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


def view_id(study: str) -> str:
    """The stable id of a study's chart view."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"mmq/{study}").hex


def trial_filter(study: str) -> str:
    """MLflow search filter for the trials of a study, without their parent."""
    return f"tags.`mmq.study` = '{study}' and tags.`mmq.kind` = 'trial'"


def chart_view_tag(study: str, components: Sequence[str], score: str) -> tuple[str, str]:
    """Key and value of the experiment tag that holds a study's chart view."""
    section = "mmq"
    params = [f"bits.{name}" for name in components]
    cards: list[dict[str, Any]] = [
        {
            "type": "SCATTER",
            "uuid": "mmq-scatter",
            "xaxis": {"key": "bpw", "type": "METRIC", "index": 0},
            "yaxis": {"key": "score", "type": "METRIC", "index": 0},
            "runsCountToCompare": 200,
        },
        {
            "type": "PARALLEL",
            "uuid": "mmq-parallel",
            "selectedParams": params,
            "selectedMetrics": ["bpw", "score"],
            "showAllRuns": True,
            "runsCountToCompare": 200,
        },
        {
            "type": "SCATTER",
            "uuid": "mmq-stored",
            "xaxis": {"key": "stored_bpw", "type": "METRIC", "index": 0},
            "yaxis": {"key": "score", "type": "METRIC", "index": 0},
            "runsCountToCompare": 200,
        },
    ]
    for card in cards:
        card |= {"deleted": False, "isGenerated": False, "metricSectionId": section}
    state = {
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
            "metrics.`bpw`",
            "metrics.`stored_bpw`",
            "metrics.`score`",
            "metrics.`score_low`",
            "metrics.`score_high`",
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
        "compareRunCharts": cards,
        "compareRunSections": [
            {
                "uuid": section,
                "name": f"{score} against size",
                "display": True,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
                "columns": 2,
                "cardHeight": 420,
            }
        ],
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now = int(time.time() * 1000)
    value = {
        "name": f"front of {study}",
        "createdAt": now,
        "updatedAt": now,
        "state": f"deflate;{packed}",
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
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}"
