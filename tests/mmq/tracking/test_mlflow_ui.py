"""The state that mmq writes for MLflow's UI."""

import base64
import json
import zlib

from mmq.tracking.mlflow_ui import ChartView, chart_link, chart_view_tag, front_tags
from mmq.tracking.queries import trial_filter


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
