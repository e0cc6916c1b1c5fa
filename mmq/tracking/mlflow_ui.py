"""The state of MLflow's UI that mmq writes, and the addresses of its pages.

`chart_view_tag`, `front_tags`, `chart_link`, `run_link` and `artifact_link` are the tags and the
addresses in which the UI stores a chart view, groups and colours runs and shows a file. There is
no public call; a browser test verifies them in the versions that `mlflow_internals` names.
"""

import base64
import json
import time
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SECTION = "mmq"
CARD_HEIGHT = 360  # pixels: one chart on a screen of 768
WIDTH = "width"  # params `width.PART` in words, which MLflow draws at equal distances
FRONT_TAG = "mmq.front"
FRONT_COLORS = {"front": "#0b6e99", "dominated": "#9aa5b1"}  # descending: the front comes first


def width_text(bits: str) -> str:
    """A width as a level of parallel coordinates, which are sorted as text."""
    return f"{int(bits):02} bits" if bits.isdecimal() else bits


def _view_id(study: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"mmq/{study}").hex


@dataclass(frozen=True, slots=True)
class ChartView:
    """The content of a study's saved view.

    trials: the MLflow filter of its trials. parts: what has bits. score: name of the metric.
    size: the metric on the x axis. has_drop: whether trials have `drop`, the loss against the
    unquantized model.
    """

    study: str
    trials: str
    parts: Sequence[str]
    score: str
    size: str = "stored_bpw"
    has_drop: bool = False


def chart_view_tag(view: ChartView) -> tuple[str, str]:
    """Key and value of the experiment tag that holds a study's chart view."""
    state = json.dumps(_state(view)).encode()
    now = int(time.time() * 1000)
    value = {
        "name": f"front of {view.study}",
        "createdAt": now,
        "updatedAt": now,
        "state": f"deflate;{base64.b64encode(zlib.compress(state)).decode()}",
    }
    return f"mlflow.sharedViewState.{_view_id(view.study)}", json.dumps(value)


def chart_link(server: str, experiment_id: str, study: str) -> str:
    """Address of the experiment page with the study's chart view."""
    # nothing else in the query: a filter there makes the UI drop the saved charts
    query = (
        f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={_view_id(study)}"
    )
    return f"{server}/#/experiments/{experiment_id}/runs?{query}"


def run_page(experiment_id: str, run_id: str) -> str:
    """A run's page, as the descriptions that the UI shows link to it."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def page_link(server: str, page: str) -> str:
    """Address of a page of the UI."""
    return f"{server}/{page}?workflowType=machine_learning"


def run_link(server: str, experiment_id: str, run_id: str) -> str:
    """Address of a run's page."""
    return page_link(server, run_page(experiment_id, run_id))


def artifact_link(server: str, experiment_id: str, run_id: str, path: str) -> str:
    """Address of a page that shows one of a run's artifacts."""
    return page_link(server, f"{run_page(experiment_id, run_id)}/artifacts/{path}")


def _scatter(x: str, y: str) -> dict[str, Any]:
    axes = {"xaxis": x, "yaxis": y}
    card = {name: {"key": key, "type": "METRIC", "index": 0} for name, key in axes.items()}
    return {"type": "SCATTER", "uuid": f"mmq-{x}-{y}", **card}


def _cards(view: ChartView) -> list[dict[str, Any]]:
    """The front, the allocations as parallel coordinates, and the score against nominal bits.

    The first chart has the drop, if there is one: MLflow's toolbar always covers the corner at
    the top right, where a plateau of scores is, and where no trial with a large drop is.
    """
    parallel = {
        "type": "PARALLEL",
        "uuid": "mmq-parallel",
        "selectedParams": [f"{WIDTH}.{name}" for name in view.parts],
        "selectedMetrics": [view.size, "score"],
        "showAllRuns": True,
    }
    shared = {"deleted": False, "isGenerated": False, "metricSectionId": SECTION}
    first = _scatter(view.size, "drop" if view.has_drop else "score")
    cards = [first, parallel, _scatter("bpw", "score")]
    return [{**card, **shared, "runsCountToCompare": 200} for card in cards]


def _group_by_front() -> dict[str, Any]:
    """Both groups open: runs in a closed group are not in the charts."""
    return {
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": FRONT_TAG}],
        },
        "groupsExpanded": {f"tag.{FRONT_TAG}.{name}": True for name in FRONT_COLORS},
        "useGroupedValuesInCharts": False,
    }


def _state(view: ChartView) -> dict[str, Any]:
    """The experiment page's state in MLflow's own field names: filter, columns, charts."""
    params = [f"bits.{name}" for name in view.parts]
    metrics = ("bpw", "stored_bpw", "score", "score_low", "score_high")
    section = {
        "uuid": SECTION,
        "name": f"{view.score} against size",
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": 1,
        "cardHeight": CARD_HEIGHT,
    }
    return {
        "searchFilter": view.trials,
        "orderByKey": f"tags.`{FRONT_TAG}`",  # the page loads 100 trials: the front is among them
        "orderByAsc": False,
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
        "runListHidden": True,  # else the front has half the width at 1366 pixels
        "isAccordionReordered": True,
        **_group_by_front(),
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
        "compareRunCharts": _cards(view),
        "compareRunSections": [section],
    }


def front_tags(group: str) -> dict[str, str]:
    """A trial's tags by which the view groups and colours it. group: of FRONT_COLORS."""
    return {FRONT_TAG: group, "mlflow.runColor": FRONT_COLORS[group]}
